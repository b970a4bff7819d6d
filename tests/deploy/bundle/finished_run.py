"""A run whose every stage is done, on a cut of the synthetic competition and a random model."""

import contextlib
import csv
import functools
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import models
import pytest

from parity.competition.eedi import kaggle_files
from parity.pipeline.stage_cores import evaluate, mine, package, predict, prepare, rehearse, train
from parity.run import ledger
from parity.run.experiment import Run, open_run
from parity.run.ledger import Evidence

SYNTHETIC = Path(__file__).parents[3] / "data" / "synthetic"
QUESTIONS, TESTED, CORPUS = 30, 5, 60
RUN_FILE = """\
[data]
source = "{source}"
competition = "buggy-rules"

[split]
kind = "random"
valid = 0.3

[prompt]
format = "icl"
instruction = "Name the mistake."
query = "{{question}} {{wrong}}"
examples = "question"
example_count = 1
query_max_length = 320

[encoder]
base = "{base}"
precision = "fp32"
device = "cpu"

[mining]
count = 5

[training]
r = 2
epochs = 1
learning_rate = 1e-2
warmup_steps = 0
train_group_size = 3

[scoring]
bootstrap = 100

[shipping]
owner = "ann"
license = "CC0-1.0"
wheels = []
rehearsed = 40
"""


@dataclass(frozen=True, slots=True)
class Chain:
    """A run whose every stage is done, on a competition and a base of its own.

    Attributes:
        run: round 0.
        printed: what the stages told.
    """

    run: Run
    printed: str

    @property
    def kaggle(self) -> Path:
        return self.run.workspace.stage("rehearse", 0) / "kaggle"

    @property
    def bundle(self) -> Path:
        return self.run.workspace.stage("package", 0) / "bundle"

    def evidence(self, kind: str) -> Evidence:
        (found,) = (one for one in ledger.read(self.run.workspace.ledger) if one.kind == kind)
        return found


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.reader(handle))


def rewritten(path: Path, change: Callable[[list[list[str]]], list[list[str]]]) -> None:
    """Change the rows of a CSV, the header not among them."""
    header, *body = rows(path)
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([header, *change(body)])


def cut(folder: Path) -> Path:
    """Write the first questions of the synthetic competition, and no more ids than they need."""
    folder.mkdir()
    for name in (kaggle_files.MAPPING, kaggle_files.SAMPLE, kaggle_files.TEST, kaggle_files.TRAIN):
        shutil.copy(SYNTHETIC / name, folder / name)
    rewritten(folder / kaggle_files.TRAIN, lambda body: body[:QUESTIONS])
    used = {
        cell.removesuffix(".0")
        for row in rows(folder / kaggle_files.TRAIN)[1:]
        for cell in row[-4:]
    }
    rewritten(
        folder / kaggle_files.MAPPING,
        lambda body: sorted(body, key=lambda row: row[0] not in used)[:CORPUS],
    )
    rewritten(folder / kaggle_files.TEST, lambda body: body[:TESTED])
    kept = {row[0] for row in rows(folder / kaggle_files.TEST)}
    rewritten(
        folder / kaggle_files.SAMPLE,
        lambda body: [row for row in body if row[0].split("_")[0] in kept],
    )
    return folder


def make(folder: Path) -> Chain:
    """Run all stages of round 0 in this process; base and competition lie at whole paths."""
    models.write(folder / "random-llama", "llama", max_position_embeddings=512)
    source = cut(folder / "competition")
    text = RUN_FILE.format(source=source, base=folder / "random-llama")
    (folder / "small.toml").write_text(text)
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told):
        patch.setenv("PARITY_DATA", str(folder / "data"))
        run = open_run(folder / "small.toml")
        prepare.prepare(run)
        mine.mine(run)
        train.train(run)
        evaluate.evaluate(run)
        predict.predict(run)
        package.package(run)
        rehearse.rehearse(run)
    return Chain(run, told.getvalue())


@functools.cache
def shared(session: Path) -> Chain:
    """Return the one chain of a test session, given its folder; no test may change it."""
    (session / "chain").mkdir()
    return make(session / "chain")
