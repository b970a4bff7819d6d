"""After out of memory, the result is that of the smaller budget."""

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
CUDA_ERROR = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried "
    "to allocate 8 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("base"), "llama")


def limit_memory(encoder: Encoder, limit: int, error: RuntimeError = CUDA_ERROR) -> list[int]:
    """Let forwards above `limit` tokens run out of memory; return the tokens of each forward."""
    sizes: list[int] = []

    def forward(_: Any, __: Any, arguments: dict[str, Any]) -> None:
        sizes.append(arguments["input_ids"].shape[1])
        if sizes[-1] > limit:
            raise error

    encoder.model.register_forward_pre_hook(forward, with_kwargs=True)
    return sizes


@pytest.mark.parametrize("error", [CUDA_ERROR, CPU_ERROR], ids=["cuda", "cpu"])
def test_a_halved_budget_gives_the_bytes_of_the_smaller_budget(
    base: BaseModel, error: RuntimeError, capsys: pytest.CaptureFixture[str]
) -> None:
    sequences = models.sequences(count=80)
    halved, expected = (
        models.load(base, token_budget=500),
        models.load(base, token_budget=125),
    )
    sizes = limit_memory(halved, 140, error)
    capsys.readouterr()
    assert halved.embed(sequences).tobytes() == expected.embed(sequences).tobytes()
    assert sizes[0] > 250 > sizes[1] > 140
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"out of memory: continues with encoder.token_budget = {budget}" for budget in (250, 125)
    ]
    assert halved.embedded.budget == expected.embedded.budget == 125
    assert halved.embedded.tokens == expected.embedded.tokens
    assert halved.digest() == expected.digest() != models.load(base, token_budget=500).digest()


def test_later_lists_start_with_the_smaller_budget(
    base: BaseModel, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = models.load(base, token_budget=500)
    limit_memory(encoder, 140)
    encoder.embed(models.sequences(count=80), "first")
    capsys.readouterr()
    encoder.embed(models.sequences(seed=1, count=80), "second")
    assert capsys.readouterr().err == ""
    assert {label: stats.budget for label, stats in encoder.stats_by_label.items()} == {
        "first": 125,
        "second": 125,
    }
    assert encoder.embedding_stats()["second"]["budget"] == encoder.speed()["budget"] == 125


def test_the_error_at_the_smallest_budget_names_the_setting(base: BaseModel) -> None:
    encoder = models.load(base, token_budget=200)
    sizes = limit_memory(encoder, 10)
    with pytest.raises(
        BadConfig,
        match=r"encoder\.token_budget = 64, .*longest text: 40 tokens.*"
        r"The error: CUDA out of memory\. Tried to allocate 2\.00 GiB$",
    ):
        encoder.embed(models.sequences())
    assert len(sizes) == 3  # 200, 100, 64


def test_no_budget_below_the_longest_sequence_is_tried(base: BaseModel) -> None:
    sequences = [[models.BOS, *[5] * 88, models.EOS], [models.BOS, *[6] * 98, models.EOS]]
    encoder = models.load(base, token_budget=300)
    limit_memory(encoder, 10)
    with pytest.raises(BadConfig, match=r"token_budget = 100, .*longest text: 100 tokens"):
        encoder.embed(sequences)


def test_other_errors_are_not_treated_as_out_of_memory(base: BaseModel) -> None:
    encoder = models.load(base)
    limit_memory(encoder, 10, RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        encoder.embed(models.sequences())


def test_tensors_of_a_failed_attempt_are_freed_before_the_retry() -> None:
    references: list[weakref.ref[torch.Tensor]] = []

    def attempt(budget: int) -> int:
        with oom_retry.raise_in_all(ProcessGroup(), CPU):
            tensor = torch.zeros(budget)
            assert all(reference() is None for reference in references)
            references.append(weakref.ref(tensor))
            if budget > 100:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")  # an error without the GPU
        return budget

    gc.disable()
    try:
        assert oom_retry.retry_with_half(400, attempt, floor=1) == 100
    finally:
        gc.enable()
    assert len(references) == 3


@pytest.mark.parametrize("is_own", [True, False], ids=["this process", "another process"])
def test_out_of_memory_in_one_process_is_raised_in_all(is_own: bool) -> None:
    class Pair(ProcessGroup):
        def all_reduce(self, tensors: list[torch.Tensor]) -> None:
            for tensor in tensors:
                tensor += int(not is_own)  # value of the other process

    def work() -> None:
        with oom_retry.raise_in_all(Pair(0, 2), CPU):
            if is_own:
                raise CUDA_ERROR

    message = "Tried to allocate 2.00 GiB" if is_own else "in another process"
    with pytest.raises(oom_retry.OutOfMemory, match=message):
        work()


def test_a_long_library_message_is_truncated() -> None:
    def attempt(_: int) -> int:
        with oom_retry.raise_in_all(ProcessGroup(), CPU):
            raise torch.cuda.OutOfMemoryError(
                "CUDA out of memory. " + "more words " * 40 + "\nhint"
            )
        return 0

    with pytest.raises(BadConfig) as error:
        oom_retry.retry_with_half(64, attempt, floor=1)
    message = str(error.value).partition("The error: ")[2]
    assert message.startswith("CUDA out of memory. more words")
    assert message.endswith(" …")
    assert len(message) <= 202
    assert "hint" not in message


def test_no_process_raises_if_all_have_enough_memory() -> None:
    class Pair(ProcessGroup):
        def all_reduce(self, tensors: list[torch.Tensor]) -> None:
            pass

    with oom_retry.raise_in_all(Pair(1, 2), CPU):
        pass
