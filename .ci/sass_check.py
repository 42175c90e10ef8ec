"""Holds the compiled hot kernels to what their speed rests on: no spills, few registers, accesses of 16 bytes, tensor
cores.

usage: sass_check.py FOLDER...  (builds of nsrt_cuda; c++filt, cuobjdump and nvdisasm are on the PATH)
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COPY_16 = r"LDGSTS\.E(\.\w+)*\.128\b"  # to shared memory, asynchronous
LOAD_16 = r"LDG\.E(\.\w+)*\.128\b(?!\.STRONG)"
TENSOR_CORES = r"HMMA\.16816\.F32\.BF16\b"
WARP_GROUPS = r"HGMMA\.64x128x16\.F32\.BF16\b"
TENSOR_LOAD = r"UTMALDG\b"


@dataclass(frozen=True)
class Hot:
    """Kernels by a pattern of their names without namespaces, how many there are, and instructions all must have.

    Where they are compiled for one kind of GPU only, `architectures` is a pattern of it.
    """

    names: str
    count: int
    instructions: tuple[str, ...]
    architectures: str = ""
    registers: int = 255  # of a thread, at most


HOT = (
    # 128 registers of 256 threads: two launches' blocks side by side.
    Hot(r"linear_kernel<TensorMultiply<(1|2|4)>, ", 30, (COPY_16, TENSOR_CORES), registers=128),
    Hot(r"linear_kernel<TensorMultiply<8>, ", 12, (COPY_16, TENSOR_CORES)),
    Hot(r"attn_decode_kernel<TensorAttention<(64|128)> ?>", 2, (LOAD_16, TENSOR_CORES)),
    Hot(r"fm_head_kernel<__nv_bfloat16, __nv_bfloat16, (1|2|4|8|16)>", 5, (COPY_16, LOAD_16)),
    Hot(r".*GemmSm80<", 2, (COPY_16, TENSOR_CORES), "sm_(?!90a)"),
    Hot(r".*GemmSm90<", 2, (WARP_GROUPS, TENSOR_LOAD), "sm_90a"),
)


@dataclass(frozen=True)
class Kernel:
    """What ptxas reported: registers of a thread, bytes of its stack frame, bytes spilled to it and from it."""

    symbol: str
    name: str
    architecture: str
    code: Path
    registers: int
    stack: int
    spills: int


REPORT = re.compile(
    r"Compiling entry function '(?P<symbol>\w+)' for '(?P<architecture>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def output(*command: str, given: str | None = None) -> str:
    """What a command prints."""
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout


def kernels_of(folder: Path) -> Iterator[Kernel]:
    """Reads the reports beside the objects of a build."""
    for report in sorted(folder.rglob("*.ptxas")):
        found = list(REPORT.finditer(report.read_text()))
        names = output("c++filt", given="\n".join(match["symbol"] for match in found)).splitlines()
        for match, name in zip(found, names, strict=True):
            yield Kernel(
                symbol=match["symbol"],
                name=name.replace("nsrt::cuda::", "").removeprefix("void ").rsplit("(", 1)[0],
                architecture=match["architecture"],
                code=report.with_suffix(""),
                registers=int(match["registers"]),
                stack=int(match["stack"]),
                spills=int(match["stores"]) + int(match["loads"]),
            )


def code_of(kernels: list[Kernel]) -> dict[Kernel, str]:
    """Disassembles kernels of one build, an object at a time."""
    code = {}
    for path in sorted({kernel.code for kernel in kernels}):
        here = {kernel.symbol: kernel for kernel in kernels if kernel.code == path}
        text = output("cuobjdump", "-sass", "-fun", ",".join(here), str(path))
        for symbol, body in re.findall(r"Function : (\w+)\n(.*?)(?=Function : |\Z)", text, re.DOTALL):
            code[here[symbol]] = body
    return code


def failures(hot: Hot, kernels: list[Kernel]) -> Iterator[str]:
    """What the kernels of one build that `hot` names fail to have."""
    chosen = [kernel for kernel in kernels if re.match(hot.names, kernel.name)]
    if len(chosen) != hot.count:
        yield f"{len(chosen)} kernels match {hot.names!r}, not {hot.count}"
    code = code_of(chosen)
    for kernel in chosen:
        print(f"{kernel.architecture}: {kernel.name}: {kernel.registers} registers, {kernel.stack} bytes of stack")
        if kernel.spills or kernel.stack:
            yield f"{kernel.name}: {kernel.spills} bytes spilled, a stack of {kernel.stack} bytes"
        if kernel.registers > hot.registers:
            yield f"{kernel.name}: {kernel.registers} registers, more than {hot.registers}"
        for instruction in hot.instructions:
            if not re.search(instruction, code.get(kernel, "")):
                yield f"{kernel.name}: no instruction matches {instruction!r}"


def main() -> None:
    """Prints the hot kernels' registers, and what is wrong."""
    wrong = 0
    for folder in map(Path, sys.argv[1:]):
        kernels = list(kernels_of(folder))
        for hot in HOT:
            if not any(re.match(hot.architectures, kernel.architecture) for kernel in kernels):
                continue
            for failure in failures(hot, kernels):
                print(f"FAILED: {folder}: {failure}")
                wrong += 1
    raise SystemExit(f"{wrong} expectations failed" if wrong else 0)


if __name__ == "__main__":
    main()
