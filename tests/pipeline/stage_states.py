"""States of a run's stages, and the error of a stage that cannot run."""

import pytest

from parity.pipeline.dag import StageGraph
from parity.run.errors import StaleInput
from parity.run.experiment import Run

ROUND = ("prepare", "mine", "train", "eval", "predict")
"""Stages that `predicted_run` has finished."""


def states(run: Run, *, stages: tuple[str, ...] = ROUND) -> dict[str, str]:
    """Return stage → `done`, `stale` or `missing`."""
    graph = StageGraph()
    return {stage: graph.standing(run, stage).state for stage in stages}


def stale(run: Run, *, stages: tuple[str, ...] = ROUND) -> list[str]:
    """Return the stages that are stale, after checking that each one has run."""
    result = states(run, stages=stages)
    assert set(result.values()) <= {"done", "stale"}
    return [stage for stage, state in result.items() if state == "stale"]


def reason_of(run: Run, stage: str) -> str:
    """Return why a stage is stale."""
    return StageGraph().standing(run, stage).reason


def refused(run: Run, stage: str, model: str = "") -> str:
    """Return the error of a stage with the words of the command that fixes it."""
    with pytest.raises(StaleInput) as error:
        _check(StageGraph(), run, stage, model)
    return f"{error.value}. Run: {' '.join(error.value.fix)}"


def _check(graph: StageGraph, run: Run, stage: str, model: str) -> None:
    """Check what a stage reads and loads, in the order in which it does when it starts."""
    graph.require(run, stage)
    graph.model(run, stage, model)
