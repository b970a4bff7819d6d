"""Where memory runs out, what comes out is what the smaller budget would have given."""

import gc
import weakref
from typing import Any

import models
import pytest
import torch

from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import oom_retry
from parity.retrieval.engine.distributed import ProcessGroup
from parity.retrieval.models.base_model import BaseModel
from parity.run.errors import BadConfig

CPU = torch.device("cpu")
CUDA_SAYS = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU_SAYS = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried "
    "to allocate 8 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("base"), "llama")


def narrow(encoder: Encoder, most: int, error: RuntimeError = CUDA_SAYS) -> list[int]:
    """Let the model run out of memory above `most` nodes; return the nodes of each forward."""
    seen: list[int] = []

    def forward(_: Any, __: Any, given: dict[str, Any]) -> None:
        seen.append(given["input_ids"].shape[1])
        if seen[-1] > most:
            raise error

    encoder.model.register_forward_pre_hook(forward, with_kwargs=True)
    return seen


@pytest.mark.parametrize("error", [CUDA_SAYS, CPU_SAYS], ids=["cuda", "cpu"])
def test_a_halved_budget_gives_the_bytes_of_one_asked_for_from_the_start(
    base: BaseModel, error: RuntimeError, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = models.sequences(count=80)
    surprised, expected = (
        models.load(base, token_budget=500),
        models.load(base, token_budget=125),
    )
    seen = narrow(surprised, 140, error)
    capsys.readouterr()
    assert surprised.embed(asked).tobytes() == expected.embed(asked).tobytes()
    assert seen[0] > 250 > seen[1] > 140
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"out of memory: goes on with encoder.token_budget = {most}" for most in (250, 125)
    ]
    assert surprised.embedded.budget == expected.embedded.budget == 125
    assert surprised.embedded.tokens == expected.embedded.tokens
    assert surprised.digest() == expected.digest() != models.load(base, token_budget=500).digest()


def test_later_lists_begin_with_the_smaller_budget(
    base: BaseModel, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = models.load(base, token_budget=500)
    narrow(encoder, 140)
    encoder.embed(models.sequences(count=80), "first")
    capsys.readouterr()
    encoder.embed(models.sequences(seed=1, count=80), "second")
    assert capsys.readouterr().err == ""
    assert {label: one.budget for label, one in encoder.lists.items()} == {
        "first": 125,
        "second": 125,
    }
    assert encoder.took()["second"]["budget"] == encoder.speed()["budget"] == 125


def test_at_the_floor_the_setting_and_the_way_out_are_named(base: BaseModel) -> None:
    encoder = models.load(base, token_budget=200)
    seen = narrow(encoder, 10)
    with pytest.raises(
        BadConfig,
        match=r"encoder\.token_budget = 64, .*longest text: 40 tokens.*"
        r"it said: CUDA out of memory\. Tried to allocate 2\.00 GiB$",
    ):
        encoder.embed(models.sequences())
    assert len(seen) == 3  # 200, 100, 64


def test_no_budget_below_the_longest_sequence_is_tried(base: BaseModel) -> None:
    long = [[models.BOS, *[5] * 88, models.EOS], [models.BOS, *[6] * 98, models.EOS]]
    encoder = models.load(base, token_budget=300)
    narrow(encoder, 10)
    with pytest.raises(BadConfig, match=r"token_budget = 100, .*longest text: 100 tokens"):
        encoder.embed(long)


def test_another_error_is_no_lack_of_memory(base: BaseModel) -> None:
    encoder = models.load(base)
    narrow(encoder, 10, RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        encoder.embed(models.sequences())


def test_what_ran_out_of_memory_is_let_go_before_the_next_try() -> None:
    left: list[weakref.ref[torch.Tensor]] = []

    def attempt(most: int) -> int:
        with oom_retry.together(ProcessGroup(), CPU):
            held = torch.zeros(most)
            assert all(one() is None for one in left)
            left.append(weakref.ref(held))
            if most > 100:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")  # one of its own
        return most

    gc.disable()
    try:
        assert oom_retry.halving(400, attempt, floor=1) == 100
    finally:
        gc.enable()
    assert len(left) == 3


@pytest.mark.parametrize("mine", [True, False], ids=["here", "elsewhere"])
def test_all_processes_run_short_where_one_does(mine: bool) -> None:
    class Pair(ProcessGroup):
        def add_up(self, tensors: list[torch.Tensor]) -> None:
            for tensor in tensors:
                tensor += int(not mine)  # what the other process has

    def work() -> None:
        with oom_retry.together(Pair(0, 2), CPU):
            if mine:
                raise CUDA_SAYS

    told = "Tried to allocate 2.00 GiB" if mine else "in another process"
    with pytest.raises(oom_retry.OutOfMemory, match=told):
        work()


def test_of_what_a_library_says_the_beginning_is_kept() -> None:
    def attempt(_: int) -> int:
        with oom_retry.together(ProcessGroup(), CPU):
            raise torch.cuda.OutOfMemoryError(
                "CUDA out of memory. " + "more words " * 40 + "\nhint"
            )
        return 0

    with pytest.raises(BadConfig) as caught:
        oom_retry.halving(64, attempt, floor=1)
    said = str(caught.value).partition("it said: ")[2]
    assert said.startswith("CUDA out of memory. more words")
    assert said.endswith(" …")
    assert len(said) <= 202
    assert "hint" not in said


def test_nobody_runs_short_where_all_have_room() -> None:
    class Pair(ProcessGroup):
        def add_up(self, tensors: list[torch.Tensor]) -> None:
            pass

    with oom_retry.together(Pair(1, 2), CPU):
        pass
