"""A course of ten queries for a tiny model, and one training of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
import torch

from parity.competition.query import MisconceptionId, QueryId
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.run_file import TrainingConfig
from parity.training.batches import Batch
from parity.training.checkpoint import CheckpointState
from parity.training.gradcache import Tokens
from parity.training.trainer import Callbacks, TrainingPlan, fit

TEMPERATURE = 0.05
QUERIES = 10
Log = list[tuple[int, dict[str, float]]]


class Stopped(BaseException):
    """A training that ends where a test wants it to."""


def text(kind: int, number: int) -> list[int]:
    """Return token ids; some share a head."""
    return [models.BOS, 60 + kind, 70 + number // 3, 90 + number, models.EOS]


def tokens(batch: Batch) -> tuple[Tokens, Tokens]:
    asked = [text(0, int(id_.split("_")[0])) for id_ in batch.query_ids]
    return asked, [text(1, key) for key in batch.passages]


def batch(queries: Sequence[int], wrong: Sequence[int] = (10, 11)) -> Batch:
    """Return a batch whose queries have the passage of their number for an answer."""
    passages = (*queries, *wrong)
    return Batch(
        tuple(QueryId(f"{query}_A") for query in queries),
        tuple(map(MisconceptionId, passages)),
        tuple(range(len(queries))),
        ((),) * len(queries),
    )


BATCHES = tuple(batch(range(start, start + 2)) for start in range(0, QUERIES, 2))
COURSE = TrainingPlan((BATCHES, BATCHES[::-1]), tokens, "key")  # two epochs of five batches
SETTINGS = {
    "r": 2,
    "lora_alpha": 4.0,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "temperature": TEMPERATURE,
    "checkpoint_every": 100,
    "token_budget": 64,
}


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({**SETTINGS, **changes})


def prepared(base: BaseModel, config: TrainingConfig) -> Encoder:
    """Return an encoder as the stage hands it over."""
    encoder = models.load(base)
    torch.manual_seed(config.seed)
    encoder.model = adapter.attach(encoder.model, config)
    if config.gradient_checkpointing:
        encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
    return encoder


def train(
    base: BaseModel,
    folder: Path,
    course: TrainingPlan = COURSE,
    *,
    stop: int | None = None,
    said: list[str] | None = None,
    **changes: Any,
) -> tuple[Encoder, CheckpointState, Log, list[tuple[int, int]]]:
    """Train; return the encoder, the progress, and what the watch was told. `stop` is a step."""
    config = settings(**changes)
    encoder = prepared(base, config)
    log: Log = []
    ended: list[tuple[int, int]] = []

    def logged(values: dict[str, float], step: int) -> None:
        log.append((step, values))
        if step == stop:
            raise Stopped

    watch = Callbacks(
        lambda epoch, state: ended.append((epoch, state.step)),
        logged,
        said.append if said is not None else lambda _: None,
    )
    state = fit(encoder, course, config, folder, watch)
    return encoder, state, log, ended
