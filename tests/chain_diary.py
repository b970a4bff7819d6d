"""An end-to-end check of docs/diary.md: its commands, with a tiny model in place of bge-en-icl.

`python tests/chain_diary.py` copies runs/diary to a temporary folder with smaller sizes,
runs every command of the page's bash blocks in order and checks what they left. Commands for Kaggle
talk to the stand-in. A command with `# refused: TEXT` must fail with TEXT in its message, and one
with `# differs: TEXT` must find a difference. Each command is a process of its own, forked from a
server that has imported torch, because its import takes longer than most of the commands.
"""

import csv
import io
import json
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
from chain_to_score import kaggle_for
from kagglestandin import Kaggle
from kagglestandin_server import StandIn

from parity.analysis.forecast import calibration
from parity.cli import main as parity
from parity.competition import ranking as rankings
from parity.competition.eedi import kaggle_files
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dag, dataset, model_reference
from parity.run import files, ledger
from parity.run import manifest as manifests
from parity.run.errors import ResultsDiffer
from parity.run.experiment import Run, open_run
from parity.run.ledger import Evidence
from parity.run.manifest import Manifest
from parity.training import negatives

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "diary.md"
SYNTHETIC, SOLUTION = ROOT / "data" / "synthetic", "solution.csv"
FOLDER = Path("runs/diary")
RUNS = ("diary-v1", "diary-v2", "diary-v3", "diary-whole")
QUESTIONS = 250  # more questions leave no unseen label in a random split
SIZES: dict[str, dict[str, Any]] = {
    "encoder": {"device": "cpu"},
    "training": {"r": 4, "learning_rate": 1e-2, "batch_size": 64, "train_group_size": 2},
    "scoring": {"bootstrap": 100},
    "shipping": {"rehearsed": 30},
}
"""Changed settings: section → key → value."""
PRELOADED = (
    "parity.pipeline.stage_cores.train",
    "parity.pipeline.stage_cores.package",
    "transformers.models.llama.modeling_llama",
    "peft",
    "bm25s",
)
ACCELERATE = "accelerate.commands.accelerate_cli"
SECONDS = 300  # timeout of a command


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the page.

    Attributes:
        words: words of parity.
        launcher: words in front of them if `accelerate` starts the processes.
        outcome: `passes`, `refused` or `differs`.
        message: part of the message of a command that does not pass.
    """

    words: tuple[str, ...]
    launcher: tuple[str, ...] = ()
    outcome: str = "passes"
    message: str = ""

    @property
    def text(self) -> str:
        """Words as on the page, without the program."""
        return shlex.join(self.words)


Printed = dict[str, list[str]]
"""Command → its output each time that it ran."""


def read_commands(page: str) -> Iterator[Command]:
    """Yield the commands in the bash blocks of a page; downloads of weights are left out."""
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL):
        for line in block.splitlines():
            text, _, comment = line.partition("   # ")
            program, *words = shlex.split(text)
            outcome, _, message = comment.partition(": ")
            if program == "accelerate":
                first = words.index("parity") + 1
                yield Command(tuple(words[first:]), tuple(words[:first]))
            elif program != "hf":
                assert program == "./inv", line
                yield Command(tuple(words), (), outcome or "passes", message)


def write_inputs(folder: Path) -> None:
    """Write run files, competition and model to where the run files expect them."""
    shutil.copytree(ROOT / FOLDER, folder / FOLDER)
    for name in RUNS:
        path = folder / FOLDER / f"{name}.toml"
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        merged = {key: {**tree.get(key, {}), **SIZES.get(key, {})} for key in {**tree, **SIZES}}
        path.write_text("\n".join(flat_lines(merged)) + "\n", encoding="utf-8")
    run = open_run(folder / FOLDER / f"{RUNS[0]}.toml")
    base = folder / run.config.encoder.base
    models.write(base, "llama", max_position_embeddings=4096, num_hidden_layers=1)
    target = folder / run.config.data.source
    shutil.copytree(SYNTHETIC, target)
    with (SYNTHETIC / kaggle_files.TRAIN).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:QUESTIONS]
    with (target / kaggle_files.TRAIN).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def flat_lines(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield a tree of settings as lines of TOML, each with the complete key."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat_lines(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} = {json.dumps(value)}"


def run_words(words: tuple[str, ...], output: Path) -> None:
    """Run parity in a forked process, with its output in a file."""
    with output.open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    raise SystemExit(parity(words))


def run_command(command: Command, output: Path) -> tuple[int, str]:
    """Run a command, and return its exit code and its output."""
    if command.launcher:
        result = subprocess.run(
            [sys.executable, "-m", ACCELERATE, *command.launcher, *command.words],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        return result.returncode, result.stdout + result.stderr
    process = multiprocessing.get_context("forkserver").Process(
        target=run_words, args=(command.words, output)
    )
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
    return process.exitcode or 0, output.read_text(encoding="utf-8")


def run_page(commands: Iterable[Command], standin: StandIn, output: Path) -> Printed:
    """Run all commands and return what they printed."""
    printed: Printed = {}
    for command in commands:
        started = time.monotonic()
        if command.words[0] == "push":
            connect(standin, run_of(command))
        code, text = run_command(command, output)
        lines = text.strip().splitlines()
        seconds = time.monotonic() - started
        print(f"== {command.text} ({seconds:.1f} s)", *lines[-1:], sep="\n", flush=True)
        is_expected = {
            "passes": code == 0,
            "differs": code == ResultsDiffer.exit_code,
            "refused": code not in (0, ResultsDiffer.exit_code),
        }[command.outcome]
        assert is_expected, (command.text, code, text)
        errors = " ".join(line for line in lines if line.startswith("error: "))
        assert command.message in errors, (command.message, text)
        assert "Traceback" not in text, text
        printed.setdefault(command.text, []).append(text)
    return printed


def run_of(command: Command) -> Run:
    """Return the run of a command, at its round."""
    words = command.words
    round_ = int(words[words.index("--round") + 1]) if "--round" in words else 0
    return open_run(Path(words[words.index("--run") + 1]), (), round_)


def connect(standin: StandIn, run: Run) -> None:
    """Let the stand-in's kernels write what this run rehearsed, and score it by the solution."""
    kaggle = kaggle_for(run)
    standin.kaggle.runner = kaggle.runner
    for slug, competition in kaggle.competitions.items():
        competition.score = score_submission
        standin.kaggle.competitions.setdefault(slug, competition)


def score_submission(content: bytes) -> tuple[str, str]:
    """Return the public and the private score: MAP@25 on the labels of the test."""
    with (SYNTHETIC / SOLUTION).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["MisconceptionId"]) >= 0]
    submitted = csv.DictReader(io.StringIO(content.decode()))
    ranked = {row["QuestionId_Answer"]: row["MisconceptionId"].split() for row in submitted}
    values = [
        1 / (1 + ids.index(row["MisconceptionId"])) if row["MisconceptionId"] in ids else 0.0
        for row in rows
        for ids in [ranked[row["QuestionId_Answer"]]]
    ]
    score = f"{sum(values) / len(values):.5f}"
    return score, score


# What the commands left behind


def open_diary(name: str, round_: int = 0) -> Run:
    """Return a run of the diary: `v1`, `v2`, `v3` or `whole`."""
    return open_run(FOLDER / f"diary-{name}.toml", (), round_)


def manifest_of(folder: Path) -> Manifest:
    """Return the manifest in the folder of a finished stage."""
    manifest = manifests.read(folder)
    assert manifest is not None, folder
    return manifest


def facts_of(run: Run, stage: str) -> dict[str, Any]:
    """Return the facts in the manifest of a finished stage."""
    return manifest_of(dag.folder(run, stage)).facts


def cvs(records: Iterable[Evidence], run: str, label: str) -> list[Evidence]:
    """Return the CVs of a label of a run."""
    key = (run, label, "cv")
    return [record for record in records if (record.run, record.label, record.kind) == key]


def check_base_model(records: list[Evidence], printed: Printed) -> None:
    """Needs 1 and 4: the base model is scored before all else, and 4-bit is in the same table."""
    assert [record.label for record in records[:2]] == ["base", "base@plain"]
    folder = open_diary("v2").workspace.root / "round-0" / "eval"
    for label in ("base", "base@plain"):
        inputs = manifest_of(folder / label).inputs
        extra = {key for key in inputs if not key.endswith(" of prepare")}
        assert extra == {"model", "base"}, extra
    (table,) = printed["eval --run runs/diary/diary-v2.toml --model epoch-4 --as bnb4"]
    assert re.search(r"^epoch-4\*? .*\n(?:.*\n)*?epoch-4@bnb4", table, re.MULTILINE), table


def check_splits(records: list[Evidence]) -> None:
    """Needs 2 and 15: v1 has the same rows in two run files, which differ in [split] alone."""
    contaminated, _ = cvs(records, "diary-v2", "epoch-4@v1")
    expected, *_ = cvs(records, "diary-v1", "epoch-4")
    assert contaminated.layers["split"] == expected.layers["split"]
    trees = [tomllib.loads((ROOT / FOLDER / f"{name}.toml").read_text()) for name in RUNS]
    for tree in trees:
        del tree["split"]
        tree["evaluations"].pop("v1", None)
    assert all(tree == trees[0] for tree in trees)


def check_epochs(records: list[Evidence]) -> None:
    """Needs 3, 12, 13 and 14: five epochs, reloaded, in two processes, scored alike twice."""
    run = open_diary("v2")
    facts, folder = facts_of(run, "train"), dag.folder(run, "train")
    epochs = [f"epoch-{number}" for number in range(1, 6)]
    assert (facts["processes"], list(facts["round_trip"])) == (2, epochs)
    trained = {name: files.read_json(folder / f"{name}.json") for name in epochs}
    assert len({record["layers"]["adapter"] for record in trained.values()}) == len(epochs)
    for name in ("epoch-4", "epoch-5"):
        (record,) = cvs(records, run.config.name, name)
        assert record.layers["adapter"] == trained[name]["layers"]["adapter"]
        assert record.score == trained[name]["scores"]
    report = run.workspace.report.read_text(encoding="utf-8")
    assert all(re.search(rf"\| *{number} *\|", report) for number in range(1, 6)), report


def check_contaminated(records: list[Evidence], printed: Printed) -> None:
    """Need 7: the mistake is marked and in no table; the clean rows are scored instead."""
    bad, good = cvs(records, "diary-v2", "epoch-4@v1")
    assert (bad.status, good.status) == ("contaminated", "clean")
    command = "eval --run runs/diary/diary-v2.toml --model epoch-4 --as v1"
    (first,), (second,) = printed[f"{command} --accept-contaminated"], printed[command]
    assert "CONTAMINATED" in first
    value = Scores.from_json(bad.score).all.score
    assert value is not None
    assert f"epoch-4@v1: MAP@25 {value.value:.4f}" in first
    row = re.compile(r"^epoch-4@v1\*? ", re.MULTILINE)
    assert (row.search(first), bool(row.search(second))) == (None, True)
    run = open_diary("v2")
    report = run.workspace.report.read_text(encoding="utf-8")
    assert f"{value.value:.4f} {value.low:.3f}" not in report
    assert ledger.id_of(bad)[:12] not in report


def check_negatives() -> None:
    """Needs 8 to 11: ranks 2 to 200, never a positive, repeatable, with the miner's name."""
    for name in ("v2", "whole"):
        run = open_diary(name)
        data, folder = dataset.load(run.config, run.workspace), dag.folder(run, "mine")
        mined = negatives.read(folder / "negatives.jsonl", data.corpus)
        ranking = rankings.read(folder / "ranking.jsonl")
        exported = files.read_jsonl(folder / "flagembedding.jsonl")
        assert len(ranking.query_ids) == len(exported) == len(data.train)
        repeated = negatives.mine(
            ranking,
            data.qrels,
            data.corpus,
            run.config.mining,
            positives=data.positives,
            miner=mined.miner,
        )
        assert repeated == mined
    miner = facts_of(open_diary("v2", 1), "mine")
    other = facts_of(open_diary("whole", 1), "mine")
    assert miner["model"] == "round-0/epoch-5"
    assert other["model"] == "diary-v2/round-0/epoch-5"
    assert miner["miner"] == other["miner"] != facts_of(open_diary("v2"), "mine")["miner"]


def check_rounds() -> None:
    """Need 16: round 1 was trained from epoch 5 of round 0."""
    run = open_diary("v2", 1)
    manifest = manifest_of(dag.folder(run, "train"))
    assert manifest.facts["model"] == "round-0/epoch-5"
    assert manifest.inputs["model"] == model_reference.resolve("round-0/epoch-5", run).digest


def check_submissions(records: list[Evidence], standin: StandIn) -> None:
    """Needs 5, 6 and 17: four scores, each of exact weights and of the file that was predicted."""
    scored = [record for record in records if record.kind == "public"]
    kernels = [record for record in records if record.kind == "kernel"]
    rehearsals = [record for record in records if record.kind == "rehearsal"]
    expected = [("v2", ""), ("v2", "epoch-5"), ("v1", "epoch-4"), ("whole", "epoch-5")]
    assert len(scored) == len(standin.kaggle.submissions) == len(expected)
    for (name, epoch), record, *measured in zip(expected, scored, kernels, rehearsals, strict=True):
        folder = dag.folder(open_diary(name), "train")
        weights = files.read_json(folder / f"{epoch}.json")["layers"]["adapter"] if epoch else ""
        assert (record.run, record.layers["adapter"]) == (f"diary-{name}", weights)
        assert all(item.layers == record.layers for item in measured)
    for name in ("v1", "v2", "whole"):
        run = open_diary(name)
        of_run = [record for record in scored if record.run == run.config.name]
        assert of_run[-1].layers["submission"] == facts_of(run, "predict")["sha256"]
    standin.check()


def check_gap(records: list[Evidence]) -> None:
    """Needs 17 and 18: the report has CV against LB, forecasts their scores, a layer its part."""
    run = open_diary("v2")
    report = run.workspace.report.read_text(encoding="utf-8")
    for name in ("diary-v1", "diary-v2"):
        assert f"{name}, round 0, public" in report
    checked = calibration.join_scores(records, ledger.read_forecasts(run.workspace.ledger))
    assert {item.name for item in checked} == {
        "diary-v2/round-0/base@kaggle",
        "diary-v2/round-0/epoch-5@kaggle",
        "diary-v1/round-0/epoch-4@kaggle",
    }
    (parts,) = files.read_json(run.workspace.attributions).values()
    assert "examples" in json.dumps(parts)


def check_needs(page: str, printed: Printed) -> None:
    """Check that the page's table has all 18 needs, and that a command of each ran."""
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 19))
    for number, cell in rows:
        for text in re.findall(r"`(.*?)`", cell):
            words = text.partition(" parity ")[2].split() or text.split()
            ran = [command for command in printed if set(words) <= set(command.split())]
            assert ran, (number, text)


def main() -> None:
    """Run the page in an empty folder, then check what its commands left."""
    started = time.monotonic()
    page = PAGE.read_text(encoding="utf-8")
    start_folder = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, StandIn(Kaggle(polls=0)) as standin:
        work = Path(folder) / "work"
        work.mkdir()
        write_inputs(work)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT / "tests"))),
            "PARITY_DATA": "data",
            "PARITY_PROGRAM": "./inv",
            "OMP_NUM_THREADS": "1",
            **standin.environment(Path(folder) / "home"),
        }
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(work)
        multiprocessing.set_forkserver_preload(["__main__", *PRELOADED])
        try:
            printed = run_page(read_commands(page), standin, Path(folder) / "output")
            records = ledger.read(open_diary("v2").workspace.ledger)
            check_base_model(records, printed)
            check_splits(records)
            check_epochs(records)
            check_contaminated(records, printed)
            check_negatives()
            check_rounds()
            check_submissions(records, standin)
            check_gap(records)
            check_needs(page, printed)
        finally:
            os.chdir(start_folder)
    count = sum(map(len, printed.values()))
    print(f"all {count} commands of {PAGE.name} passed in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
