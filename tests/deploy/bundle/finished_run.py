"""A run with all local stages done, on a part of the synthetic competition and a random model."""

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
from shipped_data import synthetic_folder

from parity.competition.eedi import kaggle_files
from parity.pipeline.stage_cores import evaluate, mine, package, predict, prepare, rehearse, train
from parity.run import ledger
from parity.run.experiment import Run, open_run
from parity.run.ledger import Evidence

SYNTHETIC = synthetic_folder()
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
class FinishedRun:
    """A run with all local stages done.

    Attributes:
        run: round 0.
        printed: output of the stages.
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
        (record,) = (item for item in ledger.read(self.run.workspace.ledger) if item.kind == kind)
        return record


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.reader(handle))


def rewrite_rows(path: Path, change: Callable[[list[list[str]]], list[list[str]]]) -> None:
    """Change the rows of a CSV, without its header."""
    header, *body = rows(path)
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([header, *change(body)])


def write_competition(folder: Path) -> Path:
    """Write the first questions of the synthetic competition, with only the ids that they need."""
    folder.mkdir()
    for name in (kaggle_files.MAPPING, kaggle_files.SAMPLE, kaggle_files.TEST, kaggle_files.TRAIN):
        shutil.copy(SYNTHETIC / name, folder / name)
    rewrite_rows(folder / kaggle_files.TRAIN, lambda body: body[:QUESTIONS])
    used = {
        cell.removesuffix(".0")
        for row in rows(folder / kaggle_files.TRAIN)[1:]
        for cell in row[-4:]
    }
    rewrite_rows(
        folder / kaggle_files.MAPPING,
        lambda body: sorted(body, key=lambda row: row[0] not in used)[:CORPUS],
    )
    rewrite_rows(folder / kaggle_files.TEST, lambda body: body[:TESTED])
    question_ids = {row[0] for row in rows(folder / kaggle_files.TEST)}
    rewrite_rows(
        folder / kaggle_files.SAMPLE,
        lambda body: [row for row in body if row[0].split("_")[0] in question_ids],
    )
    return folder


def run_all_stages(folder: Path) -> FinishedRun:
    """Run all stages of round 0 in this process; base and competition have absolute paths."""
    models.write(folder / "random-llama", "llama", max_position_embeddings=512)
    source = write_competition(folder / "competition")
    text = RUN_FILE.format(source=source, base=folder / "random-llama")
    (folder / "small.toml").write_text(text)
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setenv("PARITY_DATA", str(folder / "data"))
        run = open_run(folder / "small.toml")
        prepare.prepare(run)
        mine.mine(run)
        train.train(run)
        evaluate.evaluate(run)
        predict.predict(run)
        package.package(run)
        rehearse.rehearse(run)
    return FinishedRun(run, output.getvalue())


@functools.cache
def shared(session: Path) -> FinishedRun:
    """Return the finished run of a test session, given its folder; no test may change it."""
    (session / "finished-run").mkdir()
    return run_all_stages(session / "finished-run")
