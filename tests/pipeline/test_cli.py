"""The command line: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.commands import fails, run
from PIL import Image
from typer.testing import CliRunner

from nextstep_rt import CheckpointError, Error, Pipeline, __version__
from nextstep_rt.cli import app
from nextstep_rt.images import read_metadata

TINY = str(Path(__file__).parent.parent / "golden" / "tiny" / "model")
FAST = ["--model", TINY, "--device", "cpu", "--height", "32", "--width", "32", "--steps", "2"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NSRT_DEBUG", raising=False)


def test_version() -> None:
    assert run("--version").stdout == f"nextstep-rt {__version__}\n"


def test_generate() -> None:
    result = run("generate", "two green triangles", *FAST, "--seed", "5", "-o", "a.png")
    lines = result.stdout.splitlines()
    assert lines[0] == "a.png  seed 5"
    assert "1 image in" in lines[1]
    assert "ms per token" in lines[1]
    stored = read_metadata("a.png")
    assert stored["prompt"] == "two green triangles"
    assert (stored["seed"], stored["num_inference_steps"], stored["height"]) == (5, 2, 32)
    with Image.open("a.png") as image:
        expected = Pipeline.from_pretrained(TINY, device="cpu")(
            "two green triangles", seed=5, height=32, width=32, num_inference_steps=2
        )
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected.images[0]))


def test_every_flag_reaches_the_request() -> None:
    run(
        "generate", "a", *FAST, "--seed", "1", "--guidance", "2.5", "--schedule", "linear", "--renorm",
        "--solver", "flow-cps", "--timestep-shift", "1.5", "--noise-level", "0.5", "--last-step-size", "0.1",
        "--no-normalize", "--negative", "n", "--positive", "p", "--dtype", "float32",
        "--threads", "1", "--backend", "reference",
    )  # fmt: skip
    stored = read_metadata("out.png")
    wanted = {
        "guidance_scale": 2.5, "guidance_schedule": "linear", "guidance_renorm": True, "solver": "flow-cps",
        "timestep_shift": 1.5, "noise_level": 0.5, "last_step_size": 0.1, "normalize_tokens": False,
        "negative_prompt": "n", "positive_prompt": "p", "dtype": "float32",
    }  # fmt: skip
    assert {name: stored[name] for name in wanted} == wanted


def test_several_images_and_a_prompts_file() -> None:
    Path("prompts.txt").write_text("two\n\n  \na red circle\n", encoding="utf-8-sig")
    result = run("generate", "--prompts-file", "prompts.txt", "-n", "5", *FAST, "--seed", "70", "-o", "p")
    names = [f"p-{i:04d}.png" for i in range(1, 11)]
    assert sorted(p.name for p in Path().glob("*.png")) == names
    assert [line.split()[0] for line in result.stdout.splitlines()[:10]] == names
    assert [read_metadata(name)["seed"] for name in names] == list(range(70, 80))
    assert [read_metadata(name)["prompt"] for name in names] == ["two"] * 5 + ["a red circle"] * 5
    run("generate", "a red circle", *FAST, "--seed", "79", "-o", "alone.png")
    np.testing.assert_array_equal(np.asarray(Image.open("alone.png")), np.asarray(Image.open(names[9])))


def test_quiet() -> None:
    assert run("generate", "two", *FAST, "-q").stdout == "out.png\n"


def test_preview_rewrites_as_rows_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    from nextstep_rt.cli import draw

    written: list[tuple[str, int | None]] = []
    write = draw.write_png

    def recording(image: Any, path: Any, request: Any) -> None:
        write(image, path, request)
        written.append((str(path), read_metadata(path).get("rows_complete")))

    monkeypatch.setattr(draw, "write_png", recording)
    result = run("generate", "two", *FAST, "--height", "64", "--preview")
    assert written == [("out.png", 1), ("out.png", 2), ("out.png", 3), ("out.png", None)]
    assert [p.name for p in Path().iterdir()] == ["out.png"]
    assert "1 image" in result.stdout


def test_edit() -> None:
    Image.effect_noise((40, 30), 50).save("in.png")
    result = run("edit", "in.png", "add a hat", *FAST, "--image-guidance", "1.5", "--guidance", "2", "-o", "b.png")
    assert "note: image resized from 40x30 to 32x32" in result.stderr
    stored = read_metadata("b.png")
    assert stored["prompt"] == "<image>add a hat"
    assert stored["image"] is True
    run("edit", "in.png", "make <image> blue", *FAST)
    assert read_metadata("out.png")["prompt"] == "make <image> blue"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a prompt, or --prompts-file"),
        (["a", "--prompts-file", "x"], "one of the two"),
        (["--prompts-file", "none.txt"], "cannot read none.txt"),
        (["a", "--height", "100"], "96 and 112"),
        (["a", "--steps", "-1"], "error: --steps is -1"),
        (["a", "--guidance", "nan"], "error: --guidance is nan"),
        (["a", "--solver", "eular"], "did you mean 'euler'"),
        (["a", "-n", "0"], "error: --num-images is 0"),
        (["a", "-n", "1000000"], "1000000"),
        (["a", "--seed", "-1"], "error: --seed is -1"),
        (["a", "-o", "a.jpg"], "must end in .png"),
        (["a", "-o", "no/a.png"], "mkdir -p"),
        (["a", "-o", "."], "is a folder: name a file in it, e.g. -o image.png"),
        (["a", "-o", "new/"], "is a folder: name a file in it, e.g. -o new/image.png"),
        (["a", "-o", "-"], "not written to standard output: name a file"),
        (["a", "-o", ""], "has no name"),
        (["a", "-o", "/dev/null"], "/dev/null exists and is not a file"),
        (["a", "-o", "a" * 300 + ".png"], f"error: cannot write {'a' * 300}.png: File name too long\n"),
        (["a", "-n", "2", "-o", "a" * 250 + ".png"], "-0001.png: File name too long\n"),
        (["a", "--model", "/nowhere"], "no folder"),
        (["a", "--revision", "v1"], "leave --revision out"),
        (["a", "--device", "tpu"], "unknown --device"),
        (["a", "--dtype", "int8"], "float32"),
        (["a", "--backend", "jax"], "native, reference"),
        (["a", "--threads", "0"], "error: --threads is 0"),
        (["<image>a"], "use `nextstep-rt edit"),
        (["a", "--positive", "<image>"], "use `nextstep-rt edit"),
    ],
)
def test_wrong_generate_arguments(arguments: list[str], message: str) -> None:
    assert message in fails("generate", *arguments)
    assert list(Path().iterdir()) == []


def test_prompts_files_that_are_none() -> None:
    Path("empty.txt").write_text("\n \n")
    assert "holds no prompt" in fails("generate", "--prompts-file", "empty.txt")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in fails("generate", "--prompts-file", "binary.txt")


def test_wrong_edits() -> None:
    assert "does not exist" in fails("edit", "none.png", "add", *FAST)
    Path("text.png").write_text("hello")
    assert "cannot be read as a picture" in fails("edit", "text.png", "add", *FAST)
    Image.new("RGB", (8, 8)).save("in.png")
    assert "2 <image> markers" in fails("edit", "in.png", "<image><image>", *FAST)
    run("edit", "in.png", code=2)


def test_an_output_that_is_a_folder() -> None:
    Path("a.png").mkdir()
    assert "is a folder: name a file in it, e.g. -o a.png/image.png" in fails("generate", "a", *FAST, "-o", "a.png")
    Path("p").mkdir()
    assert "is a folder: name a file in it" in fails("generate", "a", *FAST, "-o", "p")
    Path("q-0002.png").mkdir()
    assert "q-0002.png exists and is not a file" in fails("generate", "a", *FAST, "-n", "2", "-o", "q")


def test_a_missing_device_is_no_traceback() -> None:
    from nextstep_rt import _core

    if _core.build_info()["cuda"] == "on":
        pytest.skip("this build has CUDA")
    assert "CUDA" in fails("generate", "a", "--device", "cuda", code=1)


def test_faults_are_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("inner")

    monkeypatch.setattr(Pipeline, "from_pretrained", broken)
    assert "ZeroDivisionError: inner" in fails("generate", "a", code=1)
    monkeypatch.setenv("NSRT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        CliRunner().invoke(app, ["generate", "a"], catch_exceptions=False)


@pytest.mark.parametrize(("error", "code"), [(Error("e"), 1), (CheckpointError("e"), 2), (MemoryError(), 1)])
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Pipeline, "from_pretrained", broken)
    fails("generate", "a", code=code)


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "from_pretrained", interrupted)
    assert run("generate", "a", code=130).stderr == "stopped\n"


def test_info() -> None:
    printed = run("info", TINY, "--verify").stdout
    for part in ("256x256, 256 tokens", "3 layers", "backbone", "fm_head", "vae", "every weight is finite", "bfloat16"):
        assert part in printed
    values = json.loads(run("info", TINY, "--json").stdout)
    parameters = values["parameters"]
    assert parameters["backbone"] + parameters["fm_head"] + parameters["embeddings"] == values["bytes"] // 2
    assert parameters["fm_head"] > 0
    assert parameters["vae"] > 0
    assert values["bytes_per_token"]["total"] > values["bytes_per_token"]["backbone"] > 0
    assert "no folder" in fails("info", "/nowhere")


def test_info_verify_names_broken_weights(tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(Path(TINY).parent.parent / "gqa5" / "model", folder)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    start = 8 + int.from_bytes(data[:8], "little") + header["layers.1.mlp.up_proj.weight"]["data_offsets"][0]
    data[start : start + 2] = b"\xc0\x7f"
    weights.write_bytes(data)
    result = run("info", str(folder), "--verify", code=2)
    assert "error: NaN or inf in 1 tensor(s): layers.1.mlp.up_proj.weight" in result.stderr


def test_doctor() -> None:
    printed = run("doctor").stdout
    assert "isa" in printed
    assert "torch" in printed
    report = json.loads(run("doctor", "--json").stdout)
    assert report["problems"] == []
    assert report["isa"] in report["isa_levels"]
    assert report["demo"].startswith("ok")
    assert report["version"] == __version__


def test_doctor_reports_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from nextstep_rt.cli import doctor

    monkeypatch.setattr(doctor, "_PACKAGES", ("no-such-package",))
    result = run("doctor", code=1)
    assert "no-such-package is missing" in result.stderr
