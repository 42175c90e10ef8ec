"""What a GPU refuses, runs out of, or breaks on; and what an emulated one shows of order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.compare import assert_same_bits
from kit.models import config_of, generate, random_weights, request, sampling, stored_as

from nextstep_rt import CheckpointError, Engine, Error, InvalidRequest

SIZES = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "latent_channels": 4, "fm_head_dim": 48}
LAUNCHES_BEFORE_A_RECORDING = 2  # of a decode: the embedding of its times
OUT_OF_MEMORY, NO_IMAGE, OLD_PTX = 2, 209, 222  # of cudaError_t


def make(dtype: str = "bfloat16", **changes: Any) -> Engine:
    config = config_of(**{**SIZES, **changes})
    return Engine(config, stored_as(random_weights(config), dtype), dtype=dtype, device="cuda")


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"hidden_size": 68}, "hidden_size is 68"), ({"fm_head_dim": 36}, "fm_head_dim is 36"),
     ({"intermediate_size": 100}, "intermediate_size is 100"), ({"fm_head_mlp_ratio": 1.1}, "MLP width is 52"),
     ({"latent_channels": 3}, "image token's width is 12")],
)  # fmt: skip
def test_sizes_that_no_kernel_takes(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as error:
        make(**changes)
    assert "use device 'cpu'" in str(error.value)


def test_a_device_that_is_not_there() -> None:
    config = config_of(**SIZES)
    with pytest.raises(Error, match=r"no device cuda:99: this machine has"):
        Engine(config, stored_as(random_weights(config), "float32"), device="cuda:99")


def test_out_of_memory_is_an_error_and_the_next_request_works(emulator: Any) -> None:
    engine, params = make(), sampling(branches=1)
    given = request(engine.config, params, 1)
    want = generate(engine, params, given)
    held = sum(engine.memory().values())
    emulator.set_memory_limit(held + 200_000)
    long = np.zeros((16, 1500, engine.config.hidden_size), np.float32)
    with pytest.raises(Error, match=r"needs .* GiB .* are available; ask for fewer or smaller images"):
        engine.prefill(long, max_new_tokens=8)
    assert_same_bits(generate(engine, params, given), want)
    # Where the driver finds no room although its count said so.
    emulator.set_memory_limit(512 << 20)
    emulator.fail_next("cudaMalloc", OUT_OF_MEMORY)
    with pytest.raises(Error, match=r"no room for \d+ MiB of .*; ask for fewer or smaller images"):
        engine.prefill(long, max_new_tokens=8)
    assert_same_bits(generate(engine, params, given), want)


def test_no_room_for_the_weights(emulator: Any) -> None:
    emulator.set_memory_limit(10_000)
    with pytest.raises(Error, match=r"no room for \d+ MiB of weights"):
        make()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            NO_IMAGE,
            r"no code for sm_90 in this build.*_ARCHITECTURES=90a-real and a toolkit that knows it, or use device",
        ),
        (OLD_PTX, r"no code for sm_90 .*does not translate its PTX .cudaErrorUnsupportedPtxVersion.: install a newer"),
    ],
)
def test_no_code_for_the_device(emulator: Any, code: int, said: str) -> None:
    emulator.fail_next("cudaFuncGetAttributes", code)
    with pytest.raises(Error, match=said):
        make()
    make()


@pytest.mark.parametrize(
    ("function", "said"), [("cudaGraphInstantiate", "a recorded token"), ("cudaMallocHost", r"\d+ MiB of page-locked")]
)
def test_no_room_for_what_is_not_on_the_device(emulator: Any, function: str, said: str) -> None:
    engine, params = make(), sampling(branches=2, num_tokens=2)
    given = request(engine.config, params, 1)
    emulator.fail_next(function, OUT_OF_MEMORY)
    with pytest.raises(Error, match=f"no room for {said}"):
        generate(engine, params, given)
    generate(engine, params, given)


def test_rows_that_the_fm_head_has_no_shared_memory_for(emulator: Any) -> None:
    """Refused before prefill, with the number of rows that fit."""
    engine = make("float32", fm_head_dim=1536, fm_head_mlp_ratio=1.0, num_hidden_layers=1, fm_head_layers=1)
    rows = np.zeros((16, 3, engine.config.hidden_size), np.float32)
    emulator.reset_launches()
    for refused in (lambda: engine.plan(16, 8, 4), lambda: engine.prefill(rows, max_new_tokens=4)):
        with pytest.raises(InvalidRequest, match=r"shared memory for 16 rows .* enough for 12; ask for fewer images"):
            refused()
    assert emulator.launches() == {}
    engine.plan(12, 8, 4)


def test_an_error_while_a_token_is_recorded(emulator: Any) -> None:
    """One that does not stick is not taken for one that does: asking the device would be refused, and say so."""
    engine, params = make(), sampling(branches=2, num_tokens=2)
    given = request(engine.config, params, 1)
    want = generate(engine, params, given)
    again = make()
    again.prefill(*given[:2], max_new_tokens=2)
    emulator.fail_next("cudaLaunchKernelEx", 1, after=LAUNCHES_BEFORE_A_RECORDING)
    with pytest.raises(Error, match="cudaErrorInvalidValue") as error:
        again.decode(params, noise=given[2])
    assert "takes no more work" not in str(error.value)
    assert_same_bits(generate(again, params, given), want)


@pytest.mark.parametrize("function", ["cudaGraphLaunch", "cudaLaunchKernelEx", "cudaMemcpyAsync"])
def test_a_call_that_fails_once(emulator: Any, function: str) -> None:
    """Without an error that sticks, the engine goes on with the next request."""
    engine, params = make(), sampling(branches=2, num_tokens=2)
    given = request(engine.config, params, 1)
    want = generate(engine, params, given)
    emulator.fail_next(function, 1)
    with pytest.raises(Error, match=r"failed on the GPU: .*cudaErrorInvalidValue"):
        generate(engine, params, given)
    assert_same_bits(generate(engine, params, given), want)


def test_an_error_that_sticks(emulator: Any) -> None:
    engine, params = make(), sampling(branches=2, num_tokens=2)
    given = request(engine.config, params, 1)
    engine.prefill(*given[:2], max_new_tokens=2)
    emulator.set_step_budget(100)  # of switches between threads: the next kernel ends as one that hangs
    for _ in range(2):
        with pytest.raises(Error, match="takes no more work from this process: start it again"):
            engine.decode(params, noise=given[2])
    with pytest.raises(Error, match="start it again"):
        make()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("branches", [1, 2, 3])
def test_the_order_of_threads_does_not_change_a_bit(emulator: Any, dtype: str, branches: int) -> None:
    """Lanes, warps, blocks and kernels that overlap, in other orders; in race mode races are failures, too."""
    engine = make(dtype, num_hidden_layers=1)
    params = sampling(branches=branches, num_tokens=2, num_inference_steps=2, solver="sde")
    given, results = request(engine.config, params, 1), []
    for seed in range(4):
        emulator.set_seed(seed)
        results.append(generate(engine, params, given))
    for other in results[1:]:
        assert_same_bits(other, results[0])


def test_launches_of_a_token(emulator: Any) -> None:
    """Five a layer and eight around them, the whole FM head in one of these."""
    engine, params = make(num_hidden_layers=3), sampling(branches=2, num_tokens=3)
    given = request(engine.config, params, 1)
    engine.prefill(*given[:2], max_new_tokens=3)
    engine.decode(params, 2, noise=given[2][:2])
    emulator.reset_launches()
    engine.decode(params, 1, noise=given[2][2:])
    launches = emulator.launches()
    assert sum(launches.values()) == 5 * 3 + 6, launches
    assert sum(n for name, n in launches.items() if "fm_head" in name) == 1
