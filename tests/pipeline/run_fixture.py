"""A run whose stages take a second each: part of the synthetic competition, a tiny random model.

Its questions share ten misconceptions, so that validation rows are seen and unseen. The corpus is
larger than 25, so that rank 25 is a real cutoff.
"""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import pytest

from parity.cli import main
from parity.competition.eedi.kaggle_files import MAPPING, SAMPLE, TEST, TRAIN
from parity.competition.synthetic import generator
from parity.pipeline import changes, dag, reload_check
from parity.pipeline.stage import stage_context
from parity.pipeline.stage_cores import evaluate
from parity.pipeline.stage_cores.mine import mine
from parity.pipeline.stage_cores.package import package
from parity.pipeline.stage_cores.predict import predict
from parity.pipeline.stage_cores.prepare import prepare
from parity.pipeline.stage_cores.rehearse import rehearse
from parity.pipeline.stage_cores.train import train
from parity.run import digest
from parity.run import manifest as manifests
from parity.run.experiment import Run, open_run
from parity.run.subprocesses import ProcessResult

QUESTIONS, TESTED, CORPUS = 26, 4, 40
SECONDS = 240  # timeout of a process

SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"competition": "small", "license": "CC0-1.0"},
    "split": {"kind": "random", "valid": 0.4},
    "prompt": {"query": "{question} {wrong}", "query_max_length": 96, "passage_max_length": 48},
    "encoder": {"precision": "fp32", "device": "cpu", "token_budget": 512},
    "mining": {"count": 6},
    "training": {
        "r": 4,
        "lora_alpha": 8.0,
        "epochs": 2,
        "learning_rate": 1e-2,
        "warmup_steps": 1,
        "batch_size": 8,
        "train_group_size": 4,
        "temperature": 0.05,
        "checkpoint_every": 2,
    },
    "scoring": {"bootstrap": 100},
}
Files = dict[str, bytes]

_STAGES: dict[str, Callable[[Run], object]] = {
    "prepare": prepare,
    "mine": mine,
    "train": train,
    "eval": evaluate.evaluate,
    "predict": predict,
    "package": package,
    "rehearse": rehearse,
}


@dataclass(frozen=True, slots=True)
class RunFixture:
    """A folder with run files and its own data folder; the working directory of a test."""

    folder: Path
    source: Path
    base: Path

    @property
    def data(self) -> Path:
        """Return the folder that PARITY_DATA names."""
        return self.folder / "data"

    def write_config(self, name: str = "small", /, **sections: dict[str, Any]) -> None:
        """Write a run file: `SETTINGS` with changed values, by section."""
        settings = {**SETTINGS, **{key: {} for key in sections if key not in SETTINGS}}
        settings = {key: {**values, **sections.get(key, {})} for key, values in settings.items()}
        settings["data"] = {"source": str(self.source), **settings["data"]}
        settings["encoder"] = {"base": str(self.base), **settings["encoder"]}
        lines = []
        for section, values in settings.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(v)}" for key, v in values.items())]
        (self.folder / f"{name}.toml").write_text("\n".join(lines) + "\n")

    def open(self, *sets: str, name: str = "small", round_: int = 0) -> Run:
        """Open a run file."""
        return open_run(Path(f"{name}.toml"), sets, round_)

    def run_stages(self, *stages: str, name: str = "small", round_: int = 0) -> Run:
        """Run stages in this process, and return the run."""
        run = self.open(name=name, round_=round_)
        for stage in stages:
            _STAGES[stage](run)
        return run

    def run_parity(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run parity in its own process, and wait for it."""
        return self.run_python("-m", "parity", *words, **environment)

    def run_python(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the folder of this fixture, and wait for it."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env={**os.environ, "PARITY_DATA": str(self.data), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )


def write_competition(folder: Path) -> Path:
    """Write part of the synthetic competition with its test labels, and return the folder."""
    tables = {name: _rows(text) for name, text in generator.generate(0).items() if ".csv" in name}
    common = [key for key, _ in Counter(_labels(tables[TRAIN])).most_common(10)]
    train = [row for row in tables[TRAIN] if set(common) & set(_labels([row]))][:QUESTIONS]
    test = tables[TEST][:TESTED]
    test_questions = {row["QuestionId"] for row in test}
    hidden = [row for row in tables[generator.SOLUTION] if _question(row) in test_questions]
    ids = [int(key) for key in {*_labels(train), *(row["MisconceptionId"] for row in hidden)}]
    ids += [key for key in map(_id, tables[MAPPING]) if key not in ids][: CORPUS - len(ids)]
    corpus = [row for row in tables[MAPPING] if _id(row) in ids]
    sampled = " ".join(str(key) for key in sorted(ids)[:25])
    sample = [
        {**row, "MisconceptionId": sampled}
        for row in tables[SAMPLE]
        if _question(row) in test_questions
    ]
    folder.mkdir(parents=True)
    rows = {TRAIN: train, TEST: test, MAPPING: corpus, SAMPLE: sample, generator.SOLUTION: hidden}
    for name, table in rows.items():
        write_rows(folder / name, table)
    return folder


def write_base(folder: Path) -> Path:
    """Write a tiny random causal model and return its folder."""
    return models.write(folder, "llama").folder


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    return _rows(path.read_text())


def write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def contents(folder: Path, *suffixes: str) -> Files:
    """Return relative name → bytes of the files under `folder`, all or those with a suffix."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (not suffixes or path.name.endswith(suffixes))
    }


def seal(folder: Path) -> None:
    """Rewrite a stage's manifest after a test changed its files."""
    manifest = manifests.read(folder)
    assert manifest is not None
    manifests.write(
        folder, manifest, [name for name in manifest.outputs if (folder / name).is_file()]
    )


def rewrite_config(run: Run, stage: str) -> None:
    """Rewrite a finished stage's manifest with the current run file."""
    folder = dag.folder(run, stage)
    manifest = manifests.read(folder)
    assert manifest is not None
    updated = replace(manifest, config=dag.config_of(run, stage))
    manifests.write(folder, updated, list(manifest.outputs))


def pretend(run: Run, *stages: str) -> None:
    """Write the manifests of stages without their outputs, for tests that do not need them."""
    for stage in stages:
        inputs: dict[str, str] = {}
        if stage == "package":
            inputs = {**changes.locks(run), **_evaluation(run)}
        if stage == "reconcile":
            inputs = changes.ids(dag.StageGraph().compared(run))
        with stage_context(run, stage, inputs=inputs) as work:
            work.facts = {"result": "same"} if stage == "reconcile" else {}


def _evaluation(run: Run) -> dict[str, str]:
    """Return the digest of the best adapter's evaluation, which a bundle records."""
    scored = manifests.read(dag.folder(run, "eval"))
    return {"evaluation": scored.digest()} if scored else {}


def digests(folder: Path) -> dict[str, str]:
    """Return relative name → sha256 of every file under `folder`."""
    return digest.of_tree(folder)


@contextmanager
def working_in(fixture: RunFixture) -> Iterator[RunFixture]:
    """Work in the fixture's folder; the reload check runs in this process, which is faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(fixture.folder)
        patch.setenv("PARITY_DATA", str(fixture.data))
        patch.setattr(reload_check, "subprocesses", SimpleNamespace(run_with_progress=_run_here))
        yield fixture


@contextmanager
def working_in_a_copy(fixture: RunFixture, folder: Path) -> Iterator[RunFixture]:
    """Work in `folder`, a copy of the fixture's folder."""
    shutil.copytree(fixture.folder, folder, dirs_exist_ok=True)
    with working_in(replace(fixture, folder=folder)) as copy:
        yield copy


def _run_here(words: Sequence[str], **_: object) -> ProcessResult:
    """Run `python -m parity ...` without a new Python."""
    stderr = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(stderr):
        code = main(words[3:])
    return ProcessResult(code, "", (stderr.getvalue().strip().splitlines() or [""])[-1])


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _labels(rows: Sequence[dict[str, str]]) -> list[str]:
    cells = (row[f"Misconception{answer}Id"] for row in rows for answer in "ABCD")
    return [cell.removesuffix(".0") for cell in cells if cell]


def _question(row: dict[str, str]) -> str:
    return row["QuestionId_Answer"].split("_")[0]


def _id(row: dict[str, str]) -> int:
    return int(row["MisconceptionId"])
