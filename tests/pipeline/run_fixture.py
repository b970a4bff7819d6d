"""A run whose stages take a second each: a cut of the synthetic competition, a tiny random model.

Its questions share ten misconceptions, so that valid rows are seen and unseen; the corpus is larger
than 25, so that rank 25 is a cut.
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

from parity.__main__ import main
from parity.competition.eedi.kaggle_files import MAPPING, SAMPLE, TEST, TRAIN
from parity.competition.synthetic import generator
from parity.pipeline import dag, reload_check
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
from parity.run.subprocesses import Ended

QUESTIONS, TESTED, CORPUS = 26, 4, 40
SECONDS = 240  # a process that takes so long has failed

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

_STAGES: dict[str, Callable[[Run], None]] = {
    "prepare": prepare,
    "mine": mine,
    "train": train,
    "eval": evaluate.evaluate,
    "predict": predict,
    "package": package,
    "rehearse": rehearse,
}


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder with run files and a data folder of its own; the working directory of a test."""

    folder: Path
    source: Path
    base: Path

    @property
    def data(self) -> Path:
        """Return the folder that PARITY_DATA names."""
        return self.folder / "data"

    def write(self, name: str = "small", /, **sections: dict[str, Any]) -> None:
        """Write a run file: `SETTINGS`, with some values of some sections changed."""
        settings = {**SETTINGS, **{key: {} for key in sections if key not in SETTINGS}}
        settings = {key: {**values, **sections.get(key, {})} for key, values in settings.items()}
        settings["data"] = {"source": str(self.source), **settings["data"]}
        settings["encoder"] = {"base": str(self.base), **settings["encoder"]}
        lines = []
        for section, values in settings.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(v)}" for key, v in values.items())]
        (self.folder / f"{name}.toml").write_text("\n".join(lines) + "\n")

    def run(self, *sets: str, name: str = "small", round_: int = 0) -> Run:
        """Open a run file."""
        return open_run(Path(f"{name}.toml"), sets, round_)

    def make(self, *stages: str, name: str = "small", round_: int = 0) -> Run:
        """Do some stages of a run in this process, and return the run."""
        run = self.run(name=name, round_=round_)
        for stage in stages:
            _STAGES[stage](run)
        return run

    def process(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Start parity in a process of its own, and wait for it."""
        return self.python("-m", "parity", *words, **environment)

    def python(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Start a Python in the bench's folder, and wait for it."""
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
    """Write a cut of the synthetic competition, its test's labels too, and return the folder."""
    whole = {name: _rows(text) for name, text in generator.generate(0).items() if ".csv" in name}
    common = [key for key, _ in Counter(_labels(whole[TRAIN])).most_common(10)]
    train = [row for row in whole[TRAIN] if set(common) & set(_labels([row]))][:QUESTIONS]
    test = whole[TEST][:TESTED]
    asked = {row["QuestionId"] for row in test}
    hidden = [row for row in whole[generator.SOLUTION] if _question(row) in asked]
    kept = [int(key) for key in {*_labels(train), *(row["MisconceptionId"] for row in hidden)}]
    kept += [key for key in map(_id, whole[MAPPING]) if key not in kept][: CORPUS - len(kept)]
    corpus = [row for row in whole[MAPPING] if _id(row) in kept]
    sampled = " ".join(str(key) for key in sorted(kept)[:25])
    sample = [
        {**row, "MisconceptionId": sampled} for row in whole[SAMPLE] if _question(row) in asked
    ]
    folder.mkdir(parents=True)
    rows = {TRAIN: train, TEST: test, MAPPING: corpus, SAMPLE: sample, generator.SOLUTION: hidden}
    for name, listed in rows.items():
        write_rows(folder / name, listed)
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
    """Return relative name → bytes of the files under `folder`, all or those that end so."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (not suffixes or path.name.endswith(suffixes))
    }


def seal(folder: Path) -> None:
    """Write a stage's manifest anew over files that a test changed, as if it had made them so."""
    found = manifests.read(folder)
    assert found is not None
    manifests.write(folder, found, [name for name in found.outputs if (folder / name).is_file()])


def rewrite_config(run: Run, stage: str) -> None:
    """Let a finished stage say that it was made under the run file as it is now."""
    place = dag.folder(run, stage)
    found = manifests.read(place)
    assert found is not None
    now = replace(found, config=dag.config_of(run, stage))
    manifests.write(place, now, list(found.outputs))


def pretend(run: Run, *stages: str) -> None:
    """Write the manifests of stages, for tests to which what they make does not matter."""
    for stage in stages:
        read: dict[str, str] = {}
        if stage == "package":
            read = dag.locks(run)
        if stage == "reconcile":
            read = dag.ids(dag.StageGraph().compared(run))
        with stage_context(run, stage, inputs=read) as work:
            work.facts = {"verdict": "same"} if stage == "reconcile" else {}


def digests(folder: Path) -> dict[str, str]:
    """Return relative name → sha256 of every file under `folder`."""
    return digest.of_tree(folder)


@contextmanager
def working_in(bench: Bench) -> Iterator[Bench]:
    """Work in the bench's folder; the round trip reloads in this process, to save its start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(bench.folder)
        patch.setenv("PARITY_DATA", str(bench.data))
        patch.setattr(reload_check, "subprocesses", SimpleNamespace(run_with_progress=_here))
        yield bench


@contextmanager
def working_in_a_copy(bench: Bench, folder: Path) -> Iterator[Bench]:
    """Work in `folder` with all that lies in the bench's, whose files stay as they are."""
    shutil.copytree(bench.folder, folder, dirs_exist_ok=True)
    with working_in(replace(bench, folder=folder)) as mine:
        yield mine


def _here(words: Sequence[str], **_: object) -> Ended:
    """Run `python -m parity ...` without a new Python."""
    told = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(told):
        code = main(words[3:])
    return Ended(code, "", (told.getvalue().strip().splitlines() or [""])[-1])


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _labels(rows: Sequence[dict[str, str]]) -> list[str]:
    cells = (row[f"Misconception{answer}Id"] for row in rows for answer in "ABCD")
    return [cell.removesuffix(".0") for cell in cells if cell]


def _question(row: dict[str, str]) -> str:
    return row["QuestionId_Answer"].split("_")[0]


def _id(row: dict[str, str]) -> int:
    return int(row["MisconceptionId"])
