"""A training plan of ten queries for a tiny model, and a function that runs it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
import torch

from parity.competition.query import Position, QueryId
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.training import TrainingConfig
from parity.training.batches import Batch
from parity.training.checkpoint import CheckpointState
from parity.training.gradcache import Tokens
from parity.training.trainer import Callbacks, TrainingPlan, fit

TEMPERATURE = 0.05
QUERIES = 10
Log = list[tuple[int, dict[str, float]]]


class Interrupted(BaseException):
    """An interruption of a training at a given step."""


def text(kind: int, number: int) -> list[int]:
    """Return token ids; some have a common prefix."""
    return [models.BOS, 60 + kind, 70 + number // 3, 90 + number, models.EOS]


def tokens(batch: Batch) -> tuple[Tokens, Tokens]:
    queries = [text(0, int(id_.split("_")[0])) for id_ in batch.query_ids]
    return queries, [text(1, key) for key in batch.passages]


def batch(queries: Sequence[int], wrong: Sequence[int] = (10, 11)) -> Batch:
    """Return a batch in which the positive of query i is passage i."""
    passages = (*queries, *wrong)
    return Batch(
        tuple(QueryId(f"{query}_A") for query in queries),
        tuple(map(Position, passages)),
        tuple(range(len(queries))),
        ((),) * len(queries),
    )


BATCHES = tuple(batch(range(start, start + 2)) for start in range(0, QUERIES, 2))
PLAN = TrainingPlan((BATCHES, BATCHES[::-1]), tokens, "key")  # two epochs of five batches
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


def build_encoder(base: BaseModel, config: TrainingConfig) -> Encoder:
    """Return an encoder as the stage `train` prepares it."""
    encoder = models.load(base)
    torch.manual_seed(config.seed)
    encoder.model = adapter.attach(encoder.model, config)
    if config.gradient_checkpointing:
        encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
    return encoder


def train(
    base: BaseModel,
    folder: Path,
    plan: TrainingPlan = PLAN,
    *,
    stop: int | None = None,
    lines: list[str] | None = None,
    **changes: Any,
) -> tuple[Encoder, CheckpointState, Log, list[tuple[int, int]]]:
    """Train up to step `stop`; return the encoder, the state, the log and the finished epochs."""
    config = settings(**changes)
    encoder = build_encoder(base, config)
    log: Log = []
    epochs: list[tuple[int, int]] = []

    def logged(values: dict[str, float], step: int) -> None:
        log.append((step, values))
        if step == stop:
            raise Interrupted

    callbacks = Callbacks(
        lambda epoch, state: epochs.append((epoch, state.step)),
        logged,
        lines.append if lines is not None else lambda _: None,
    )
    state = fit(encoder, plan, config, folder, callbacks)
    return encoder, state, log, epochs
