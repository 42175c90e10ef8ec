"""Breaks the kernels on purpose, one fault at a time: every one must fail its test in race mode.

usage: mutants.py FOLDER [OP...]. Copies and builds go to FOLDER; kept, a second run is faster.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPS = "csrc/cuda/ops"


@dataclass(frozen=True)
class Mutant:
    """What is wrong, in which op, and how to make it so: `old`, which occurs once in the file, becomes `new`."""

    fault: str
    op: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "no barrier between the warps' sums and their addition",
        "linear",
        f"{OPS}/linear/linear.cuh",
        "  __syncthreads();\n  block.combine();",
        "  block.combine();",
    ),
    Mutant(
        "no barrier after the rows' scales",
        "linear",
        f"{OPS}/linear/linear.cuh",
        "  row_scales(task, slots, scales);\n  __syncthreads();",
        "  row_scales(task, slots, scales);",
    ),
    Mutant(
        "no barrier between the warps' sums of a row's squares and their addition",
        "linear",
        f"{OPS}/linear/linear.cuh",
        "  if (norm.squares) __syncthreads();\n",
        "",
    ),
    Mutant(
        "a launch that does not wait for the one before",
        "linear",
        f"{OPS}/linear/linear.cuh",
        "  ptx::pdl_wait();\n",
        "",
    ),
    Mutant(
        "x of a step that the warp does not have in registers yet",
        "linear",
        f"{OPS}/linear/linear.cuh",
        "ahead_[i] = load(step + i + kAhead, first);",
        "ahead_[i] = load(step + i + 1, first);",
    ),
    Mutant(
        "a relaxed ticket",
        "linear",
        f"{OPS}/linear/linear.cuh",
        "arrived = ptx::add_acq_rel(workspace_.tickets + tile, 1u)",
        "arrived = atomicAdd(workspace_.tickets + tile, 1u)",
    ),
    Mutant(
        "a block before the last one adds up",
        "linear",
        f"{OPS}/linear/linear.cuh",
        "if (static_cast<int>(arrived) != last - first) return;",
        "if (static_cast<int>(arrived) != last - first - 1) return;",
    ),
    Mutant(
        "a share that begins one step late",
        "linear",
        f"{OPS}/linear/tiles.cuh",
        "return {all.begin + static_cast<int>(size * index / count)",
        "return {all.begin + (index > 0) + static_cast<int>(size * index / count)",
    ),
    Mutant(
        "weights that are read before they have arrived",
        "linear",
        f"{OPS}/linear/stream.cuh",
        "ptx::cp_async_wait<kStages - 1>()",
        "ptx::cp_async_wait<kStages>()",
    ),
    Mutant(
        "a sum that is no number counts as no positions",
        "attn_decode",
        f"{OPS}/attn_decode/attn_decode.cuh",
        "begin < end ? out / sum",
        "sum > 0.0f ? out / sum",
    ),
    Mutant(
        "no barrier between the warps' parts and their combination",
        "attn_decode",
        f"{OPS}/attn_decode/attn_decode.cuh",
        "  policy.store(mine.max, mine.sum, mine.out, heads);\n  __syncthreads();",
        "  policy.store(mine.max, mine.sum, mine.out, heads);",
    ),
    Mutant(
        "a ticket taken before all threads have written",
        "attn_decode",
        f"{OPS}/attn_decode/attn_decode.cuh",
        "  __syncthreads();\n  if (threadIdx.x == 0) {",
        "  if (threadIdx.x == 0) {",
    ),
    Mutant(
        "a relaxed ticket",
        "attn_decode",
        f"{OPS}/attn_decode/attn_decode.cuh",
        "ptx::add_acq_rel(workspace.tickets + unit, 1u)",
        "atomicAdd(workspace.tickets + unit, 1u)",
    ),
    Mutant(
        "a write before the wait for the launch before",
        "attn_decode",
        f"{OPS}/attn_decode/attn_decode.cuh",
        "  ptx::pdl_wait();\n",
        "  if (threadIdx.x == 0) workspace.tickets[0] = 0;\n  ptx::pdl_wait();\n",
    ),
    Mutant(
        "a split that ends one position early",
        "attn_decode",
        f"{OPS}/attn_decode/attn_decode.cuh",
        "end = place.position + 1;",
        "end = place.position;",
    ),
    Mutant(
        "no barrier between the warps' squares and their sum",
        "prefill",
        f"{OPS}/rows/rows.cuh",
        "parts[warp_index()] = of_warp;\n  __syncthreads();",
        "parts[warp_index()] = of_warp;",
    ),
    Mutant(
        "rows that go to another sequence's cache",
        "prefill",
        f"{OPS}/prefill/prefill.cuh",
        "std::int64_t{place.sequence} * task.h_kv + head;",
        "std::int64_t{place.sequence} * task.h_q + head;",
    ),
    Mutant(
        "one buffer for a residual stream that a block may still be reading",
        "fm_head",
        f"{OPS}/fm_head/fm_head.cuh",
        "    hidden_parity_ ^= 1;\n",
        "",
    ),
    Mutant(
        "words that are taken whatever their tag",
        "fm_head",
        f"{OPS}/fm_head/exchange.cuh",
        "static_cast<std::uint32_t>(pairs[i].x >> 32) == tag &&",
        "static_cast<std::uint32_t>(pairs[i].x >> 32) != 0 &&",
    ),
    Mutant(
        "no barrier before rows are normalized",
        "fm_head",
        f"{OPS}/fm_head/fm_head.cuh",
        "    residual_.finish_moments();\n    __syncthreads();\n",
        "    residual_.finish_moments();\n",
    ),
    Mutant(
        "no barrier between the parts of a row's moments and their sum",
        "fm_head",
        f"{OPS}/fm_head/fm_head.cuh",
        "    __syncthreads();\n    residual_.finish_moments();\n",
        "    residual_.finish_moments();\n",
    ),
    Mutant(
        "resident weights that nobody waits for",
        "fm_head",
        f"{OPS}/fm_head/fm_head.cuh",
        "    ptx::cp_async_wait<0>();\n",
        "",
    ),
    Mutant(
        "a carry that is written while another block may still be reading it",
        "fm_head",
        f"{OPS}/fm_head/solver.cuh",
        "    ptx::fence_acq_rel();\n    __syncthreads();\n",
        "    __syncthreads();\n",
    ),
    Mutant(
        "a velocity that is kept, and not carried to the next launch",
        "fm_head",
        f"{OPS}/fm_head/solver.cuh",
        "      t.carry[2 * count + i] = kept_v[i];\n",
        "",
    ),
)


class Build:
    """A build of the ops' race tests from a copy of csrc/, to be broken and mended."""

    def __init__(self, folder: Path) -> None:
        self.sources, self.folder = folder / "csrc", folder / "build"
        shutil.copytree(ROOT / "csrc", self.sources, dirs_exist_ok=True)
        self._run("cmake", "-S", str(ROOT / "tests/emu"), "-B", str(self.folder), f"-DNSRT_CSRC={self.sources}")

    def test_passes(self, op: str) -> bool:
        """Builds the op's test and runs it."""
        target = f"emu_race_op_{op}"
        self._run("cmake", "--build", str(self.folder), "--target", target)
        return subprocess.run([self.folder / "ops" / target], capture_output=True, check=False).returncode == 0

    def catches(self, mutant: Mutant) -> bool:
        """Whether the op's test fails with the fault in place."""
        path = self.sources.parent / mutant.file
        whole = path.read_text()
        if whole.count(mutant.old) != 1:
            raise SystemExit(
                f"{mutant.fault}: {mutant.file} has {whole.count(mutant.old)} times {mutant.old!r}, not once"
            )
        path.write_text(whole.replace(mutant.old, mutant.new))
        try:
            return not self.test_passes(mutant.op)
        finally:
            path.write_text(whole)

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")


def main() -> None:
    """Prints every mutant; exits with 1 where one is not caught."""
    build = Build(Path(sys.argv[1]).resolve())
    chosen = [mutant for mutant in MUTANTS if mutant.op in (sys.argv[2:] or mutant.op)]
    for op in dict.fromkeys(mutant.op for mutant in chosen):
        if not build.test_passes(op):
            raise SystemExit(f"{op} fails as it is: mutants say nothing")
    missed = 0
    for mutant in chosen:
        caught = build.catches(mutant)
        missed += not caught
        print(f"{'caught' if caught else 'MISSED'}: {mutant.op}: {mutant.fault}", flush=True)
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
