"""The architecture's rules, read from the sources."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from kit.isolated import run_python

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
SOURCES = (".h", ".cc", ".cu", ".cuh")
MAX_LINES = 300

# What the files of a room may include, beside the standard library and the system.
MAY_INCLUDE = {
    "include": {"include"},
    "core": {"include", "core"},
    "backend": {"include", "core", "backend"},
    "engine": {"include", "core", "backend", "engine"},
    "cpu": {"include", "core", "backend", "cpu"},
    "cuda": {"include", "core", "backend", "cuda"},
    "no_cuda": {"include", "core", "backend", "no_cuda"},
    # The module shows the engine, and each backend's ops.
    "python": {"include", "core", "backend", "engine", "cpu", "cuda", "python"},
}
SYSTEM = re.compile(r"(cpuid|fcntl|sched|unistd|pthread|immintrin|arm_neon|sys/\w+)\.h")
CUDA = re.compile(r"(cuda|cublas|cute|cutlass|nccl|cooperative_groups|nv).*")


def rooms() -> list[str]:
    return sorted(p.name for p in CSRC.iterdir() if p.is_dir())


@cache
def files_of(room: str) -> list[Path]:
    return sorted(p for p in (CSRC / room).rglob("*") if p.suffix in SOURCES)


def includes(path: Path) -> list[tuple[str, str]]:
    """(bracket, name) of every include, in comments or not."""
    return re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def room_of(name: str) -> str:
    return "include" if name.startswith("nextstep_rt/") else name.split("/")[0]


def test_every_room_is_known() -> None:
    assert set(rooms()) <= set(MAY_INCLUDE)
    assert all(files_of(room) for room in rooms())


@pytest.mark.parametrize("room", rooms())
def test_includes_go_one_way(room: str) -> None:
    wrong = []
    for path in files_of(room):
        for bracket, name in includes(path):
            if bracket == "<":
                continue
            target = room_of(name)
            exists = (CSRC / "include" / name).is_file() if target == "include" else (CSRC / name).is_file()
            if target not in MAY_INCLUDE[room] or not exists:
                wrong.append(f"{path.relative_to(ROOT)} includes {name}")
    assert not wrong


@pytest.mark.parametrize("room", rooms())
def test_foreign_headers_stay_in_their_rooms(room: str) -> None:
    """Python only in csrc/python, CUDA only in csrc/cuda, torch nowhere, nothing but std in the public headers."""
    wrong = []
    for path in files_of(room):
        for bracket, name in includes(path):
            if bracket == '"':
                continue
            python = name == "Python.h" or name.startswith("pybind11/")
            std = re.fullmatch(r"[a-z_0-9]+", name) is not None
            system = SYSTEM.fullmatch(name) is not None and room != "include"
            cuda = CUDA.fullmatch(name) is not None and room == "cuda"
            if not (std or system or cuda or (python and room == "python")):
                wrong.append(f"{path.relative_to(ROOT)} includes <{name}>")
            if re.match(r"(torch|ATen|c10)/", name):
                wrong.append(f"{path.relative_to(ROOT)} includes torch: <{name}>")
    assert not wrong


def test_cpu_and_cuda_never_see_each_other() -> None:
    for room, other in (("cpu", "cuda"), ("cuda", "cpu"), ("no_cuda", "cpu"), ("no_cuda", "cuda"), ("engine", "cpu")):
        assert other not in MAY_INCLUDE[room]
    for path in files_of("engine"):
        assert not re.search(r"namespace nsrt::(cpu|cuda)|nsrt::(cpu|cuda)::|\bcpu::|\bcuda::", path.read_text()), path


def compilers() -> list[str]:
    return [name for name in ("g++", "clang++") if shutil.which(name)]


@pytest.mark.skipif(not compilers(), reason="no C++ compiler on this machine")
@pytest.mark.parametrize("header", [p.name for p in files_of("include")])
def test_public_headers_compile_alone(header: str) -> None:
    for compiler in compilers():
        done = subprocess.run(
            [compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion",
             "-Werror", f"-I{CSRC / 'include'}", "-x", "c++", "-"],
            input=f"#include <nextstep_rt/{header}>\n#include <nextstep_rt/{header}>\nint main() {{}}\n",
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not compilers(), reason="no C++ compiler on this machine")
def test_every_other_header_compiles_alone() -> None:
    """But those that say they are parts of another file."""
    headers = [p for room in rooms() if room not in ("include", "python", "cuda") for p in files_of(room)]
    alone = [p for p in headers if p.suffix == ".h" and "Included only" not in p.read_text()]
    alone = [p for p in alone if "NSRT_ISA " not in p.read_text() and "Included last" not in p.read_text()]
    assert len(alone) > 10
    compiler = compilers()[0]
    for path in alone:
        done = subprocess.run(
            [compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}",
             f"-I{CSRC / 'include'}", "-x", "c++", "-"],
            input=f'#include "{path.relative_to(CSRC).as_posix()}"\n', capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


# ---- the package


def test_import_is_quick_and_brings_nothing() -> None:
    code = """
    import sys, time
    begin = time.perf_counter()
    import nextstep_rt
    print(time.perf_counter() - begin)
    heavy = [n for n in ("torch", "numpy", "safetensors", "tokenizers", "PIL", "typer", "huggingface_hub",
                         "scipy", "matplotlib", "nextstep_rt._core", "nextstep_rt.train") if n in sys.modules]
    assert not heavy, heavy
    """
    assert min(float(run_python(code)) for _ in range(5)) < 0.1


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("from nextstep_rt import Error, CheckpointError, InvalidRequest", "numpy torch"),
        ("from nextstep_rt import Checkpoint, Engine, ModelConfig, SamplingParams", "torch"),
        ("from nextstep_rt import ops", "torch"),
        ("from nextstep_rt import Pipeline; Pipeline.from_pretrained", "torch"),
        ("import nextstep_rt.cli", "torch numpy"),
        ("import nextstep_rt.pipeline, nextstep_rt.cli", "scipy matplotlib nextstep_rt.train"),
    ],
)
def test_torch_comes_only_with_what_needs_it(code: str, absent: str) -> None:
    run_python(f"{code}\nimport sys\nassert not (found := {{*{absent.split()!r}}} & {{*sys.modules}}), found")


def test_every_public_name_is_there() -> None:
    run_python(
        """
        import nextstep_rt
        for name in nextstep_rt.__all__:
            assert getattr(nextstep_rt, name) is not None
            assert name in dir(nextstep_rt)
        """
    )


def imported(path: Path) -> set[str]:
    """Full names of what a file imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = path.relative_to(ROOT).with_suffix("").parts
            parts = [*(here[: -node.level] if node.level else ()), *((node.module,) if node.module else ())]
            names |= {".".join([*parts, alias.name]) for alias in node.names}
    return names


def test_only_evaluate_knows_of_training() -> None:
    """Training builds on the package, never the other way: its extra is not installed with it."""
    package = ROOT / "nextstep_rt"
    outside = [p for p in package.rglob("*.py") if package / "train" not in p.parents]
    may = {package / "cli" / "evaluate.py"}
    wrong = {p.relative_to(ROOT).as_posix(): found for p in outside if p not in may and (found := trained(imported(p)))}
    assert not wrong
    # What is looked for is found where it is.
    assert trained(imported(package / "train" / "captions.py")) >= {"nextstep_rt.train.world.Scene"}


def trained(names: set[str]) -> set[str]:
    return {name for name in names if f"{name}.".startswith("nextstep_rt.train.")}


# ---- all files


def written_files() -> list[Path]:
    """Sources, not data: everything somebody wrote."""
    kinds = {*SOURCES, ".py", ".pyi", ".cmake", ".in", ".sh"}
    folders = ("csrc", "nextstep_rt", "tests", "bench")
    found = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in kinds]
    found += [p for p in (ROOT / ".ci").rglob("*") if p.is_file()]
    found += [ROOT / "CMakeLists.txt", *ROOT.rglob("tests/**/CMakeLists.txt")]
    return sorted({p for p in found if p.is_file() and "__pycache__" not in p.parts})


def test_files_are_short() -> None:
    """One exception: generated stubs."""
    sizes = {p.relative_to(ROOT).as_posix(): len(p.read_text().splitlines()) for p in written_files()}
    assert not {name: n for name, n in sizes.items() if n > MAX_LINES and not name.endswith("_core.pyi")}


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK|NotImplemented" + r"Error)\b")
    left = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in written_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]
    assert not left


def test_no_library_code_ends_the_process() -> None:
    """Errors are thrown: no exit, abort or assert on input (static_assert is fine)."""
    ending = re.compile(r"(?<![\w:.])(std::)?(exit|_exit|quick_exit|abort|terminate|assert)\s*\(")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for room in rooms()
        for path in files_of(room)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ending.search(line.split("//")[0])
    ]
    assert not found
