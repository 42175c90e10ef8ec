"""The command line as a process: closed, full and terminal streams, and Ctrl-C while it loads."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

TINY = str(Path(__file__).parent.parent / "golden" / "tiny" / "model")
FAST = ["--model", TINY, "--device", "cpu", "--height", "32", "--width", "32", "--steps", "2"]
GENERATE = [sys.executable, "-m", "nextstep_rt", "generate", "two", *FAST]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def shell(redirection: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'"$@" {redirection}', "sh", *GENERATE]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("redirection", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams(redirection: str) -> None:
    done = shell(redirection)
    assert done.returncode == 0, done
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_stdout() -> None:
    done = shell(">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "error: cannot write to standard output: No space left on device\n"


def test_paths_go_to_stdout_below_a_bar() -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(GENERATE, stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=300, check=False)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0
    assert done.stdout.startswith("out.png  seed ")
    assert done.stdout.count("\n") == 2


def test_doctor_with_an_unknown_instruction_set() -> None:
    command = [sys.executable, "-m", "nextstep_rt", "doctor", "--json"]
    done = subprocess.run(
        command, env={**os.environ, "NSRT_ISA": "foo"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert any("'foo'" in problem for problem in json.loads(done.stdout)["problems"])


INTERRUPTED = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
sys.argv = ["nextstep-rt", "generate", "a"]
{start}
"""


@pytest.mark.parametrize(
    "start", ["from nextstep_rt.cli import app; app()", "from nextstep_rt.cli import main; main()"]
)
@pytest.mark.parametrize("name", ["typer", "nextstep_rt.cli.generate", "nextstep_rt.cli.draw", "numpy", "PIL"])
def test_ctrl_c_while_loading(start: str, name: str) -> None:
    code = INTERRUPTED.format(name=name, start=start)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_ctrl_c_outside_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import typer.core

    from nextstep_rt.cli import app

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(typer.core.TyperGroup, "invoke", interrupted)
    with pytest.raises(SystemExit) as end:
        app(["doctor"])
    assert end.value.code == 130
    assert capsys.readouterr().err == "stopped\n"
