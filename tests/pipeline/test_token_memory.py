"""The bytes of a token are logged by device, base and training settings."""

from pipeline.run_fixture import RunFixture

from parity.pipeline import token_memory
from parity.run.experiment import Run

GPU = "NVIDIA H100 80GB HBM3, 81559 MiB"


def logged(run: Run, gpu: str = GPU) -> dict[str, float]:
    return token_memory.logged_bytes_per_token(run.workspace.bytes_per_token, run.config, gpu)


def test_bytes_of_a_token_are_logged_by_device_and_base(small_run: RunFixture) -> None:
    run = small_run.open()
    path, config = run.workspace.bytes_per_token, run.config
    token_memory.log_memory(path, config, GPU, "base", 10_000.0)
    token_memory.log_memory(path, config, GPU, "base", 1.0)
    token_memory.log_memory(path, config, GPU, "base", 0.0)
    token_memory.log_memory(path, config, GPU, "train", 20_000.0)
    assert logged(run) == {"base": 10_000.0, "train": 20_000.0}
    checkpointing = small_run.open("training.gradient_checkpointing=true")
    assert logged(checkpointing) == {"base": 10_000.0}
    assert logged(run, "Tesla T4, 15360 MiB") == {}
    assert logged(small_run.open("encoder.quantize=4bit")) == {}


def test_a_list_shorter_than_a_pack_is_not_logged(small_run: RunFixture) -> None:
    run = small_run.open()
    path, config = run.workspace.bytes_per_token, run.config
    full = {"peak": 5_120_000, "tokens": 2_000, "budget": 512}
    part = {"peak": 9_999_999, "tokens": 100, "budget": 512}
    token_memory.log_memory_of_lists(
        path, config, "base", {"speed": {"gpu": GPU}, "took": {"b": part}}
    )
    assert logged(run) == {}
    token_memory.log_memory_of_lists(
        path, config, "base", {"speed": {"gpu": GPU}, "took": {"a": full, "b": part}}
    )
    assert logged(run) == {"base": 10_000.0}


def test_without_a_known_peak_nothing_is_logged(predicted_run: RunFixture) -> None:
    assert not predicted_run.open().workspace.bytes_per_token.exists()
