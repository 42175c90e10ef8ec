"""The command line's files, streams and words: what it reads once, names at once, and says of what goes wrong."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.commands import run
from PIL import Image

from nextstep_rt import Pipeline
from nextstep_rt.cli import app
from nextstep_rt.cli.names import API_NAMES, in_flags
from nextstep_rt.config import GenerationConfig
from nextstep_rt.images import read_metadata

TINY = str(Path(__file__).parent.parent / "golden" / "tiny" / "model")
FAST = ["--model", TINY, "--device", "cpu", "--height", "32", "--width", "32", "--steps", "2"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NSRT_DEBUG", raising=False)


def test_an_edit_that_overwrites_its_own_input(monkeypatch: pytest.MonkeyPatch) -> None:
    from nextstep_rt import request

    loads: list[object] = []
    load = request.load_image
    monkeypatch.setattr(request, "load_image", lambda source: (loads.append(source), load(source))[1])
    picture = Image.effect_noise((40, 30), 80).convert("RGB")
    options = [*FAST, "-n", "9", "--image-guidance", "2", "--seed", "3"]
    for folder, source in (("elsewhere", "in.png"), ("same", "same/x-0001.png")):
        Path(folder).mkdir()
        picture.save(source)
        run("edit", source, "blue", *options, "-o", f"{folder}/x.png")
    for i in range(1, 10):
        one, other = (np.asarray(Image.open(f"{folder}/x-{i:04d}.png")) for folder in ("elsewhere", "same"))
        np.testing.assert_array_equal(one, other)
    assert [source for source in loads if isinstance(source, str)] == ["in.png", "same/x-0001.png"]


def test_each_path_is_printed_as_it_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    from nextstep_rt.cli import draw

    events: list[str] = []
    write = draw.write_png
    monkeypatch.setattr(
        draw, "write_png", lambda image, path, *rest: (write(image, path, *rest), events.append("save"))
    )
    monkeypatch.setattr(draw, "say", events.append)
    run("generate", "a", *FAST, "-n", "9", "--guidance", "2", "-o", "x", "--seed", "4")
    assert events[::2] == ["save"] * 9 + [events[-1]]
    assert events[1::2] == [f"x-{i + 1:04d}.png  seed {4 + i}" for i in range(9)]
    assert events[-1].startswith("9 images in")


def test_prompts_from_stdin_split_at_newlines_only() -> None:
    text = "a\x0bb\x0cc\u2028d\r\n\r\n two\n"
    run("generate", "--prompts-file", "-", *FAST, "-o", "x", input=text)
    assert [read_metadata(f"x-000{i}.png")["prompt"] for i in (1, 2)] == ["a\x0bb\x0cc\u2028d", " two"]
    assert len(list(Path().glob("*.png"))) == 2
    assert "standard input holds no prompt" in run("generate", "--prompts-file", "-", input=" \n", code=2).stderr


def test_a_prompts_file_is_bounded() -> None:
    Path("big.txt").write_bytes(b"a" * 1_000_001)
    assert "big.txt holds more than 1 MB" in run("generate", "--prompts-file", "big.txt", code=2).stderr
    assert "/dev/zero holds more than 1 MB" in run("generate", "--prompts-file", "/dev/zero", code=2).stderr


def test_closed_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    from nextstep_rt.progress import is_terminal, reporting

    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert not is_terminal(sys.stderr)
    with reporting(True) as report:
        report(1, 2)
    app(["generate", "a", *FAST, "-o", "a.png"], standalone_mode=False)
    assert Path("a.png").exists()
    with open(os.devnull) as closed:
        pass
    assert not is_terminal(closed)


def test_doctor_reports_an_instruction_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from nextstep_rt import _core

    def refuses() -> str:
        raise ValueError("no such thing")

    monkeypatch.setattr(_core, "isa", refuses)
    monkeypatch.setattr(_core, "build_info", refuses)
    result = run("doctor", "--json", code=1)
    report = json.loads(result.stdout)
    assert {"isa cannot be told: no such thing", "build cannot be told: no such thing"} <= {*report["problems"]}
    assert report["isa"] is None
    assert report["isa_levels"]
    assert "isa_levels" in run("doctor", code=1).stdout


@pytest.mark.parametrize("value", [None, "", "1"])
def test_no_color(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if value is not None:
        monkeypatch.setenv("NO_COLOR", value)
    line = run("generate", "a", "--steps", "0", code=2, color=True).stderr
    assert ("\x1b" in line) == (value != "1")
    assert "error: --steps is 0: it must be from 1 to 1000" in line


def test_system_errors_are_no_fault_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error", "weights")

    monkeypatch.setattr(Pipeline, "from_pretrained", broken)
    assert run("generate", "a", code=1).stderr == "error: weights: Input/output error\n"


def test_messages_name_flags() -> None:
    assert in_flags("unknown guidance_schedule 'x': choose one") == "unknown --schedule 'x': choose one"
    assert in_flags("num_inference_steps is 1, but solver 'sde' needs 2") == "--steps is 1, but solver 'sde' needs 2"
    assert in_flags("use backend='native' with dtype='float32'") == "use --backend native with --dtype float32"
    assert in_flags("height 33 is wrong") == "--height 33 is wrong"
    for kept in ("the prompt 'guidance_scale seed' is", "no folder /a/noise_level/b", "the model's dtype", "a height"):
        assert in_flags(kept) == kept


def test_help_states_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    from nextstep_rt.cli import options

    defaults = GenerationConfig()
    shown = {
        "Steps": defaults.num_inference_steps, "Guidance": defaults.guidance_scale, "Solver": defaults.solver,
        "ImageGuidance": defaults.image_guidance_scale, "Schedule": defaults.guidance_schedule,
        "Shift": defaults.timestep_shift, "NoiseLevel": defaults.noise_level, "LastStep": defaults.last_step_size,
        "Normalize": "--normalize" if defaults.normalize_tokens else "--no-normalize",
        "Renorm": "--renorm" if defaults.guidance_renorm else "--no-renorm",
    }  # fmt: skip
    for name, value in shown.items():
        wanted = f"default {value:g} " if isinstance(value, float) else f"default {value} "
        assert wanted + "unless the checkpoint says otherwise" in getattr(options, name).__metadata__[0].help
    assert {*API_NAMES.values()} >= {*GenerationConfig.names()}
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    generate, edit = run("generate", "--help").output, run("edit", "--help").output
    assert "native height" in generate
    assert "keeps the picture's ratio" in edit
    assert "without it, before the prompt" in edit
    assert "default all cores" in generate
