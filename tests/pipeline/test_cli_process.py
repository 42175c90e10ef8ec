"""The command line as a process of its own: pipes and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

TINY = str(Path(__file__).parent.parent / "golden" / "tiny" / "model")
FAST = ["--model", TINY, "--device", "cpu", "--height", "32", "--width", "32", "--steps", "2"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nextstep_rt", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_real_process_in_a_pipe() -> None:
    process = start("generate", "two", *FAST, "--seed", "1")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.startswith("out.png  seed 1\n")
    assert err == ""
    process = start("generate", "two", "--height", "33")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (2, "")
    assert err == "error: --height 33 is not a multiple of 16: the nearest that are: 32 and 48\n"


def test_ctrl_c_ends_within_a_token() -> None:
    process = start(
        "generate",
        "two",
        "--model",
        TINY,
        "--device",
        "cpu",
        "--steps",
        "1000",
        "-n",
        "8",
        "--preview",
        "--height",
        "256",
        "--width",
        "16",
    )
    deadline = time.monotonic() + 240
    while not list(Path().glob("*.png")):
        assert process.poll() is None, process.stderr
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "stopped\n"
    assert time.monotonic() - sent < 60
    assert all(not name.endswith(".part") for name in os.listdir())
