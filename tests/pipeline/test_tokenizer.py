"""Prompts to token rows: the goldens exactly, the BOS rule, and text that stays text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.golden import ALL, ROOT, load_case
from tokenizers import Tokenizer

from nextstep_rt import CheckpointError, InvalidRequest, ModelConfig
from nextstep_rt.tokenizer import PromptTokenizer, clean_text

BOS = 385


def open_tokenizer(folder: Path) -> PromptTokenizer:
    return PromptTokenizer(folder, ModelConfig.from_json((folder / "config.json").read_text()))


TINY = open_tokenizer(ROOT / "tiny" / "model")
GQA5 = open_tokenizer(ROOT / "gqa5" / "model")
ADDED = {e["content"]: e["id"] for e in json.loads((ROOT / "tiny/model/tokenizer.json").read_text())["added_tokens"]}


def variant(
    tmp_path: Path, source: str = "tiny", tokenizer: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> Path:
    """A copy of a checkpoint's small files with tokenizer.json and tokenizer_config.json changed."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / source / "model" / name, tmp_path / name)
    for name, changes in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        values = json.loads((tmp_path / name).read_text())
        values.update(changes or {})
        (tmp_path / name).write_text(json.dumps(values))
    return tmp_path


def first_row(tokenizer: PromptTokenizer, prompt: str = "two") -> tuple[int, ...]:
    return tokenizer.build([prompt], "", h=2, w=2, branches=1).rows[0]


@pytest.mark.parametrize(("checkpoint", "case"), ALL)
def test_golden_rows(checkpoint: str, case: str) -> None:
    golden = load_case(checkpoint, case)
    tokenizer = {"tiny": TINY, "gqa5": GQA5}[checkpoint]
    h, w = golden.grid
    batch = tokenizer.build(
        [golden.call["prompt"]],
        golden.call.get("negative_prompt", ""),
        h=h,
        w=w,
        branches=golden.branches,
        images_per_prompt=golden.call.get("num_images_per_prompt", 1),
        with_image="image" in golden.tensors,
    )
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64
    np.testing.assert_array_equal(batch.input_ids, golden["input_ids"])
    np.testing.assert_array_equal(batch.attention_mask, golden["attention_mask"])


def test_rows_are_branch_major() -> None:
    batch = TINY.build(["two", "a board"], "blurry", h=2, w=2, branches=2, images_per_prompt=2)
    assert len(batch.rows) == 8
    assert batch.rows[0] == batch.rows[1] != batch.rows[2] == batch.rows[3]
    assert len(set(batch.rows[4:])) == 1
    assert batch.take([7, 0]).rows == (batch.rows[7], batch.rows[0])


@pytest.mark.parametrize("token", sorted(ADDED))
def test_typed_control_tokens_stay_text(token: str) -> None:
    for text in (token, f"a {token} b", f"{token}{token}", f" {token}\n"):
        ids = TINY.encode_text(text)
        assert not set(ids) & set(ADDED.values())
        assert Tokenizer.from_file(str(ROOT / "tiny/model/tokenizer.json")).decode(ids) == text


@settings(deadline=None)
@given(
    st.text(st.characters() | st.sampled_from("<|>[]\0\ud800\udc00🐼"))
    | st.lists(st.sampled_from(sorted(ADDED))).map("".join)
)
def test_any_text_encodes_and_holds_no_control_token(text: str) -> None:
    ids = TINY.encode_text(text)
    assert not set(ids) & set(ADDED.values())
    assert (ids == []) == (text == "")


def test_lone_surrogates_become_the_replacement_character() -> None:
    assert clean_text("a\ud83d\udc3cb\ud800") == "a🐼b�"
    assert TINY.encode_text("\ud800") == TINY.encode_text("�")


def test_added_tokens_that_are_not_special_stay_text_too(tmp_path: Path) -> None:
    source = json.loads((ROOT / "tiny/model/tokenizer.json").read_text())
    added = [{**entry, "special": False, "normalized": True} for entry in source["added_tokens"]]
    tokenizer = open_tokenizer(variant(tmp_path, tokenizer={"added_tokens": added}))
    for token in ADDED:
        assert not set(tokenizer.encode_text(f"x{token} y")) & set(ADDED.values())
    assert first_row(tokenizer) == first_row(TINY)


def test_a_vocabulary_that_spells_control_tokens_itself(tmp_path: Path) -> None:
    """Without merges in the way, a whole-word model finds "<|image_area|>" in its own vocabulary."""
    words = ["a", "b", "[", "<", "|", "image", "_area", *map(str, range(10)), "*"]
    vocab = {**{word: i for i, word in enumerate(words)}, **ADDED, "[UNK]": 383}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}
    folder = variant(tmp_path, tokenizer={"model": model, "pre_tokenizer": {"type": "WhitespaceSplit"}})
    ids = open_tokenizer(folder).encode_text("a <|image_area|> b [PAD] " + "<|end_of_image|> " * 5000)
    assert not set(ids) & set(ADDED.values())
    assert ids[0] == vocab["a"]
    assert vocab["b"] in ids


@pytest.mark.parametrize("post_processor", ["kept", "removed"])
@pytest.mark.parametrize(
    ("stated", "bos"),
    [
        ({"bos_token": "<|im_start|>", "add_bos_token": True}, True),
        ({"bos_token": "<|im_start|>", "add_bos_token": None}, True),
        ({"bos_token": {"content": "<|im_start|>", "lstrip": False}, "add_bos_token": True}, True),
        ({"bos_token": "<|im_start|>", "add_bos_token": False}, False),
        ({"bos_token": None, "add_bos_token": True}, False),
    ],
)
def test_exactly_one_bos_or_none(tmp_path: Path, stated: dict[str, Any], bos: bool, post_processor: str) -> None:
    changes = {"post_processor": None} if post_processor == "removed" else {}
    row = first_row(open_tokenizer(variant(tmp_path, tokenizer=changes, config=stated)))
    assert row.count(BOS) == int(bos)
    assert (row[0] == BOS) == bos


def test_no_tokenizer_config_means_no_bos(tmp_path: Path) -> None:
    (variant(tmp_path) / "tokenizer_config.json").unlink()
    assert BOS not in first_row(open_tokenizer(tmp_path))


def test_the_marker_becomes_the_picture() -> None:
    row = TINY.build(["a<image>b"], "", h=1, w=2, branches=1, with_image=True).rows[0]
    block = TINY.image_block(1, 2)
    assert list(row) == [BOS, *TINY.encode_text("a"), *block, *TINY.encode_text("b"), *TINY.area_tokens(1, 2), TINY.boi]
    assert block.count(TINY.placeholder) == 2


def test_a_checkpoint_may_ask_for_padded_instructions(tmp_path: Path) -> None:
    """Behind an input image, of every length and of none; longer ones and texts without an image stay as they are."""
    tokenizer = open_tokenizer(variant(tmp_path, config={"instruction_length": 6}))
    block, suffix = tokenizer.image_block(1, 2), [*tokenizer.area_tokens(1, 2), tokenizer.boi]
    for text in ("", "two", "a board, a hat and two more of them"):
        ids = tokenizer.encode_text(text)
        rows = tokenizer.build([f"a<image>{text}"], text, h=1, w=2, branches=3, with_image=True).rows
        padded = [tokenizer.pad] * (6 - len(ids)) + ids
        assert list(rows[0]) == [BOS, *tokenizer.encode_text("a"), *block, *padded, *suffix]
        assert list(rows[1]) == [BOS, *block, *padded, *suffix]
        assert list(rows[2]) == [BOS, *ids, *suffix]
        plain = tokenizer.build([text], "", h=1, w=2, branches=1)
        assert list(plain.rows[0]) == [BOS, *ids, *suffix]
        assert plain.attention_mask.all()


@pytest.mark.parametrize("prompt", ["add a hat", "<image><image>", "a <image> b <image>"])
def test_marker_counts_other_than_one_are_refused(prompt: str) -> None:
    with pytest.raises(InvalidRequest, match="<image> marker"):
        TINY.build([prompt], "", h=1, w=1, branches=1, with_image=True)


def test_without_a_picture_the_negative_prompts_marker_is_text() -> None:
    rows = TINY.build(["a"], "<image>", h=1, w=1, branches=2).rows
    assert TINY.placeholder not in rows[1]


@pytest.mark.parametrize(
    ("tokenizer", "config", "message"),
    [
        ({"model": {"type": "BPE"}}, {}, "not a usable tokenizer"),
        ({"model": None}, {}, "not a usable tokenizer"),
        ({"added_tokens": []}, {}, "image_area"),
        ({}, {"bos_token": "<|nothing|>"}, "nothing"),
        ({}, {"bos_token": 7}, "bos_token must be"),
        ({}, {"bos_token": {"content": 7}}, "bos_token must be"),
        ({}, {"add_bos_token": "no"}, "add_bos_token must be"),
        ({}, {"instruction_length": -1}, "instruction_length must be"),
        ({}, {"instruction_length": True}, "instruction_length must be"),
        ({}, {"instruction_length": 2.5}, "instruction_length must be"),
        ({}, {"instruction_length": 4096}, "instruction_length must be a whole number from 0 to 1024, not 4096"),
    ],
)
def test_broken_files(tmp_path: Path, tokenizer: dict[str, Any], config: dict[str, Any], message: str) -> None:
    folder = variant(tmp_path, tokenizer=tokenizer, config=config)
    with pytest.raises(CheckpointError, match=message):
        open_tokenizer(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'"x"', b"[" * 100_000])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_files_that_are_no_json_object(tmp_path: Path, name: str, content: bytes) -> None:
    (variant(tmp_path) / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize("added", [None, 3, [3], [{}], [{"id": "x", "content": "y"}], {"a": 1}])
def test_broken_added_tokens(tmp_path: Path, added: Any) -> None:
    with pytest.raises(CheckpointError):
        open_tokenizer(variant(tmp_path, tokenizer={"added_tokens": added}))


def test_a_missing_tokenizer(tmp_path: Path) -> None:
    (variant(tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        open_tokenizer(tmp_path)


def test_ids_outside_the_models_vocabulary(tmp_path: Path) -> None:
    folder = variant(tmp_path)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "vocab_size": 394}))
    with pytest.raises(CheckpointError, match="vocab_size 394"):
        open_tokenizer(folder)
