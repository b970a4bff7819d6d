"""A loss or a gradient that is not finite stops the training, and no checkpoint has that step."""

from pathlib import Path
from typing import Any

import models
import pytest
from safetensors.torch import load_file
from training.training_data import train

from parity.retrieval.models.base_model import BaseModel
from parity.run import files
from parity.run.errors import NotFinite
from parity.training import checkpoint, trainer
from parity.training.gradcache import StepResult, add_gradient


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "llama", "llama")


def diverge(monkeypatch: pytest.MonkeyPatch, step: int, what: str, value: float) -> None:
    """Make the loss or a gradient of one step, from 1, a value."""
    calls = []

    def changed(encoder: Any, *arguments: Any, **options: Any) -> StepResult:
        result = add_gradient(encoder, *arguments, **options)
        calls.append(result)
        if len(calls) == step:
            if what == "loss":
                result.loss.fill_(value)
            else:
                weights = [weight for weight in encoder.model.parameters() if weight.requires_grad]
                assert weights[0].grad is not None
                weights[0].grad.view(-1)[0] = value
        return result

    monkeypatch.setattr(trainer, "add_gradient", changed)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("what", "step"), [("loss", 1), ("loss", 5), ("gradient norm", 4)])
@pytest.mark.parametrize("every", [1, 2, 100])
def test_the_step_is_named_and_not_saved(
    base: BaseModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    step: int,
    every: int,
    value: float,
) -> None:
    diverge(monkeypatch, step, what, value)
    expected = rf"^training step {step}: the {what} is (nan|inf|-inf)\. Lower training\.learning"
    with pytest.raises(NotFinite, match=expected):
        train(base, tmp_path, checkpoint_every=every)
    saved = checkpoint.newest(tmp_path, "key")
    assert (saved is not None) == (every < step)
    if saved is not None:
        assert files.read_json(saved / "state.json")["step"] < step
        tensors = [load_file(path) for path in saved.glob("*.safetensors")]
        assert all(bool(t.isfinite().all()) for item in tensors for t in item.values())


def test_training_goes_on_from_the_checkpoint_before(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(base, tmp_path / "whole")[1]
    with monkeypatch.context() as patch:
        diverge(patch, 4, "loss", float("nan"))
        with pytest.raises(NotFinite):
            train(base, tmp_path / "part", checkpoint_every=2)
    assert train(base, tmp_path / "part", checkpoint_every=2)[1].losses == whole.losses
