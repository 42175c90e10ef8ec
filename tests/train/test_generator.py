"""The generator's batches and losses against the runtime's own tokenizer and the oracle."""

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kit.recipes import SMALL_GENERATOR, noise_dataset
from safetensors.torch import load_file

from nextstep_rt.reference import ReferenceEngine
from nextstep_rt.train import captions, edits, world
from nextstep_rt.train.batches import DRAW_COLUMNS, EDIT_COLUMNS, IGNORED, Sampler
from nextstep_rt.train.generator import Generator, GeneratorTask, save_generator, write_layout
from nextstep_rt.train.latents import Dataset
from nextstep_rt.train.tokenizer import INSTRUCTION_TOKENS

SETTINGS = replace(
    SMALL_GENERATOR,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    fm_head_dim=24,
    fm_head_layers=2,
    batch=3,
    edit_batch=2,
    draws=2,
    steps=2,
)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    config, prompts = write_layout(SETTINGS, out)
    return SimpleNamespace(out=out, config=config, prompts=prompts)


@pytest.fixture(scope="module")
def dataset():
    return noise_dataset()


@pytest.fixture
def sampler(layout, dataset):
    return Sampler(SETTINGS, dataset, layout.prompts)


@pytest.fixture
def model(layout):
    """Weights without the zeros of the initialization, so that every part has a say."""
    torch.manual_seed(5)
    model = Generator(layout.config, SETTINGS.draws)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape))
    return model


def real_rows(batch):
    return [ids[keep].tolist() for ids, keep in zip(batch.ids, batch.keep, strict=True)]


def test_the_data_are_of_the_training_split(dataset):
    assert not any(scene.held_out for scene in dataset.scenes)
    assert not any(edit.held_out or edit.source.held_out for edit in dataset.edits)


def test_a_step_draws_the_same_batch_again_and_the_next_another(sampler):
    first, again, other = sampler.batches(7), sampler.batches(7), sampler.batches(8)
    for a, b in zip(first, again, strict=True):
        for name, value in vars(a).items():
            assert value is None or torch.equal(value, vars(b)[name]), name
    assert not torch.equal(first[0].noise, other[0].noise)


def test_rows_are_those_the_runtime_would_build(layout, dataset, monkeypatch):
    """A caption's row and an edit's row, as `PromptTokenizer.build` makes them for a request."""
    said = []
    written = captions.written

    def recorded(rng, text):
        said.append(written(rng, text))
        return said[-1]

    monkeypatch.setattr(captions, "written", recorded)
    sampler = Sampler(replace(SETTINGS, drop=0.0, batch=64, edit_batch=64), dataset, layout.prompts)
    drawings, editing = sampler.batches(1)
    assert drawings.ids.shape == (64, DRAW_COLUMNS)
    assert editing.ids.shape == (64, EDIT_COLUMNS)
    build = layout.prompts.build
    asked = {build([text], "", h=8, w=8, branches=1).rows[0] for text in said[:-64]}
    plain = [row for row in real_rows(drawings) if tuple(row) in asked]
    assert len(plain) > 40  # the others are terse or refined
    suffix = list(build(["x"], "", h=8, w=8, branches=1).rows[0][-5:])
    assert all(row[-5:] == suffix for row in real_rows(drawings))
    for row, text in zip(real_rows(editing), said[-64:], strict=True):
        assert tuple(row) in {
            build([f"<image>{space}{text}"], "", h=8, w=8, branches=1, with_image=True).rows[0] for space in ("", " ")
        }


def test_half_of_the_edits_are_learned_backwards(layout, dataset):
    """The pictures change places with the instruction."""
    sampler = Sampler(replace(SETTINGS, drop=0.0, edit_batch=64), dataset, layout.prompts)
    rng = random.Random(0)
    backs = [sampler.edit_row(rng, index % len(dataset.edits))[1] for index in range(400)]
    assert 120 < sum(backs) < 220  # what was removed from a list has no way back
    editing = sampler.batches(3)[1]
    forwards = dataset.edit_tokens.float()
    for source, target in zip(editing.source, editing.target, strict=True):
        same = [torch.equal(source, a) and torch.equal(target, b) for a, b in forwards]
        swapped = [torch.equal(source, b) and torch.equal(target, a) for a, b in forwards]
        assert sum(same) + sum(swapped) == 1


def test_dropped_conditions_are_the_rows_of_the_guidance_branches(layout, dataset):
    sampler = Sampler(replace(SETTINGS, drop=1.0), dataset, layout.prompts)
    drawings, editing = sampler.batches(1)
    rows = layout.prompts.build(["<image>x"], "", h=8, w=8, branches=3, with_image=True).rows
    assert {tuple(row) for row in real_rows(drawings)} == {rows[2]}
    assert {tuple(row) for row in real_rows(editing)} == {rows[1]}


def test_refinements_teach_the_canonical_caption(layout, dataset):
    sampler = Sampler(replace(SETTINGS, drop=0.0), dataset, layout.prompts)
    rng, found = random.Random(0), 0
    for index in [i % len(dataset.scenes) for i in range(400)]:
        row = sampler.drawing_row(rng, index)
        if sampler.begin not in row:
            assert sampler.end not in row
            continue
        found += 1
        refined = row[row.index(sampler.begin) + 1 : row.index(sampler.end)]
        assert refined == layout.prompts.encode_text(captions.canonical(dataset.scenes[index]))
        assert row[-1] == sampler.end
    assert 30 < found < 90


def test_the_longest_texts_fit_the_columns(layout, dataset):
    rng = random.Random(1)
    suffix = 5
    for _ in range(2000):
        scene = world.sample_scene(rng)
        assert len(layout.prompts.encode_text(captions.caption(rng, scene))) + suffix <= DRAW_COLUMNS
    block = len(layout.prompts.image_block(8, 8))
    for kind in edits.KINDS:
        for _ in range(400):
            text = " " + edits.sample_edit(rng, held_out=False, kind=kind).instruction
            assert block + len(layout.prompts.encode_text(text)) + suffix <= EDIT_COLUMNS


def test_text_is_predicted_where_text_follows(sampler, layout):
    for batch in sampler.batches(2):
        for ids, keep, wanted in zip(batch.ids, batch.keep, batch.next_ids, strict=True):
            for column in range(len(wanted)):
                following = int(ids[column + 1])
                unwritten = following in (layout.config.image_placeholder_id, layout.config.pad_token_id)
                ignored = not keep[column] or unwritten
                assert int(wanted[column]) == (IGNORED if ignored else following)


def test_losses_are_those_of_the_oracle(sampler, model, layout):
    """Hidden states from ReferenceEngine row by row, without padding; velocities one by one; in float64."""
    weights = {name: weight.detach().double().numpy() for name, weight in model.weights.items()}
    model = model.double()
    engine = ReferenceEngine(layout.config, weights, dtype="float64", trace=True)
    from nextstep_rt.reference.fm_head import modulations, velocity

    oracle = {name: torch.from_numpy(weight) for name, weight in weights.items()}
    for batch in sampler.batches(4):
        double = {n: v.double() if v is not None and v.is_floating_point() else v for n, v in vars(batch).items()}
        batch = replace(batch, **double)
        with torch.no_grad():
            text, mse = model(batch, model.columns(batch))
        expected_text, squares = 0.0, []
        for b in range(len(batch.ids)):
            ids = batch.ids[b][batch.keep[b]]
            embeds = oracle["embed_tokens.weight"][ids].numpy().copy()
            if batch.source is not None:
                place = (ids == layout.config.image_placeholder_id).numpy()
                embeds[place] = project(oracle, batch.source[b])
            embeds = np.concatenate([embeds, project(oracle, batch.read[b])])
            engine.prefill(embeds[None].astype(np.float32), max_new_tokens=1)
            hidden = final_hidden(engine, oracle, layout.config)
            logits = hidden[: len(ids) - 1] @ oracle["lm_head.weight"].T
            wanted = batch.next_ids[b][-(len(ids) - 1) :]
            expected_text += float(
                torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")
            )
            cond = torch.nn.functional.linear(
                hidden[len(ids) - 1 :], oracle["image_out_projector.weight"], oracle["image_out_projector.bias"]
            )
            for draw in range(SETTINGS.draws):
                for token in range(64):
                    at = (draw * len(batch.ids) + b) * 64 + token
                    t, noise, data = batch.times[at], batch.noise[at], batch.target[b, token]
                    x = (t * data + (1 - t) * noise)[None]
                    modulation = modulations(oracle, layout.config, cond[token : token + 1], t[None])[0]
                    v = velocity(oracle, layout.config, x, modulation)[0]
                    squares.append((v - (data - noise)).square().mean())
        assert float(text) == pytest.approx(expected_text, rel=1e-5)
        assert float(mse) == pytest.approx(float(torch.stack(squares).mean()), rel=1e-5)


def project(weights, tokens):
    return torch.nn.functional.linear(
        tokens.double(), weights["image_in_projector.weight"], weights["image_in_projector.bias"]
    ).numpy()


def final_hidden(engine, weights, config):
    """The last block's output of every column, after the final norm."""
    x = engine.trace["layers"][-1][-1][0]
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + config.rms_norm_eps) * weights["norm.weight"]


def test_a_few_steps_lower_the_loss_and_the_file_loads(sampler, layout, monkeypatch):
    monkeypatch.setattr("nextstep_rt.train.generator.compiled", lambda function: function)
    task = GeneratorTask(SETTINGS, sampler, layout.config, torch.device("cpu"))
    losses = []
    for _ in range(30):
        loss, metrics = task.loss(1)
        assert loss.item() == pytest.approx(0.01 * metrics["ce"] + metrics["mse"], rel=1e-4)
        for optimizer in task.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in task.optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    save_generator(dict(task.model.named_parameters()), layout.out)
    tensors = load_file(layout.out / "model.safetensors")
    assert "image_head.net.final_layer.linear.weight" in tensors
    assert all(tensor.dtype == torch.bfloat16 for tensor in tensors.values())
    ReferenceEngine(layout.config, tensors)


def test_instructions_are_padded_to_one_length(layout: SimpleNamespace, dataset: Dataset) -> None:
    """Then every token of an edited image is as far from its source in all rows, and the pads are seen, unpredicted."""
    prompts, sampler = layout.prompts, Sampler(replace(SETTINGS, drop=0.3), dataset, layout.prompts)
    assert prompts.instruction_length == INSTRUCTION_TOKENS
    wide = INSTRUCTION_TOKENS + len(prompts.area_tokens(8, 8)) + 1
    for step in (1, 2, 3):
        editing = sampler.batches(step)[1]
        ends = (editing.ids == prompts.eoi).int().argmax(dim=1)
        assert {editing.ids.shape[1] - 1 - end for end in ends.tolist()} == {wide}
        for ids, keep, next_ids, end in zip(editing.ids, editing.keep, editing.next_ids, ends.tolist(), strict=True):
            assert bool(keep[end:].all())
            assert not ((next_ids != IGNORED) & (ids[1:] == prompts.pad)).any()
