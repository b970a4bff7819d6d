"""Run one arm with one seed in one process: the stages, then the outcome.

Random negatives are drawn here and imported by `mine`, so that no query is encoded for them. The
last epoch is scored, never the best one: choosing it by the validation rows would favor an arm.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.arms import ARMS, Masks
from parity.cli import main as parity
from parity.competition import ranking as rankings
from parity.competition.ranking import Ranking
from parity.competition.scoring import metrics
from parity.pipeline import dataset, encoder_loading, evaluation, training_plan
from parity.pipeline.dataset import Dataset
from parity.retrieval import prompts
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import trie
from parity.retrieval.engine.trie import Pack
from parity.run import files
from parity.run import manifest as manifests
from parity.run.errors import BadConfig, Mismatch, ParityError
from parity.run.experiment import Run, open_run
from parity.training import flagembedding, negatives

OWN, FIXED = "own", "fixed"
"""Few-shot examples of validation queries: by the arm's setting, or fixed ones for all queries."""


def trial(file: Path, arm: str, sets: tuple[str, ...]) -> dict[str, Any]:
    """Train and score one arm; return what `effects` reads.

    Args:
        file: run file of this arm and seed only.
        arm: name of the arm.
        sets: all overrides.

    Raises:
        SystemExit: a stage failed and has printed why.
        BadConfig: the run file mines negatives with a model.
        Mismatch: sequences shared prefixes although the arm forbids it.
    """
    run = open_run(file, sets)
    if run.config.mining.strategy != "random":
        raise BadConfig(f"mining.strategy in {file} must be 'random', which needs no model")
    _stage("prepare", run)
    _stage("mine", run, "--import", str(_draw(run, dataset.load(run.config, run.workspace))))
    with _packed(ARMS[arm].masks), _timed() as step_ends:
        _stage("train", run)
        outcome = _outcome(run, arm, step_ends)
    if ARMS[arm].masks == "apart" and outcome["packed_tokens"] != outcome["plain_tokens"]:
        raise Mismatch(
            "sequences shared tokens although the arm forbids it. Fix benchmarks/trial.py"
        )
    return outcome


def apart(sequences: Sequence[Sequence[int]], budget: int) -> list[Pack]:
    """Return packs like `trie.pack`, but without prefix sharing.

    Args:
        sequences: token ids; every sequence has at least one.
        budget: tokens in a pack; a longer sequence is the only one of its pack.
    """
    packs: list[list[int]] = []
    room = 0
    for index, tokens in enumerate(sequences):
        if not packs or len(tokens) > room:
            packs.append([])
            room = budget
        packs[-1].append(index)
        room -= len(tokens)
    return [_forest(sequences, owners) for owners in packs]


def _forest(sequences: Sequence[Sequence[int]], owners: list[int]) -> Pack:
    lengths = np.array([len(sequences[index]) for index in owners])
    last = np.cumsum(lengths) - 1
    return Pack(
        ids=np.concatenate([np.asarray(sequences[index], dtype=np.int32) for index in owners]),
        depth=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        end=np.repeat(last, lengths).astype(np.int32),
        last=last,
        owner=np.array(owners, dtype=np.int64),
    )


@contextmanager
def _packed(masks: Masks) -> Iterator[None]:
    """Keep the engine's packing, or replace it with `apart`.

    Raises:
        Mismatch: the engine uses another function to pack, so that prefixes were shared.
    """
    if masks == "shared":
        yield
        return
    called = 0

    def counted(sequences: Sequence[Sequence[int]], budget: int) -> list[Pack]:
        nonlocal called
        called += 1
        return apart(sequences, budget)

    before, trie.pack = trie.pack, counted
    try:
        yield
    finally:
        trie.pack = before
    if not called:
        raise Mismatch("the engine no longer packs with trie.pack. Fix benchmarks/trial.py")


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Yield a list that receives the end time of each optimizer step."""
    step_ends: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: step_ends.append(time.monotonic()))
    try:
        yield step_ends
    finally:
        hook.remove()


def _stage(name: str, run: Run, *flags: str) -> None:
    words = [
        name,
        str(run.file),
        *(f"--set={override}" for override in run.config.overrides),
        *flags,
    ]
    if code := parity(words):
        raise SystemExit(code)


def _draw(run: Run, data: Dataset) -> Path:
    """Write the arm's negatives as a FlagEmbedding file; return its path."""
    rows = tuple(query.query_id for query in data.train)
    first = np.zeros((len(rows), 1), dtype=np.int64)
    mined = negatives.mine(
        Ranking(rows, first, np.zeros((len(rows), 1), dtype=np.float32)),
        data.qrels,
        data.corpus,
        run.config.mining,
        positives=data.positives,
        miner="none",
    )
    prompt = run.config.prompt
    path = run.workspace.root / "drawn.jsonl"
    exported = flagembedding.export_rows(
        mined,
        data.qrels,
        texts={query.query_id: prompts.query_text(prompt, query) for query in data.train},
        passages={key: prompts.passage(prompt, text) for key, text in data.corpus.items()},
        instruction=prompt.instruction,
        ranking=None,
    )
    files.write_jsonl(path, exported)
    return path


def _outcome(run: Run, arm: str, step_ends: list[float]) -> dict[str, Any]:
    data = dataset.load(run.config, run.workspace)
    folder = run.workspace.stage("train", run.round)
    last = max(int(path.stem.rpartition("-")[2]) for path in folder.glob("ranking-*.jsonl"))
    encoder = encoder_loading.load_encoder(
        run.config.encoder, run.workspace, folder / f"epoch-{last}"
    )
    rankings_by_policy = {OWN: rankings.read(folder / f"ranking-{last}.jsonl")}
    if run.config.prompt.examples != "none":
        rankings_by_policy[FIXED] = _fixed(run, encoder, data)
    metric = data.metric.within(len(data.corpus))
    trained = manifests.require(folder, run.command_words("train"))
    steps = [later - before for before, later in pairwise(step_ends)]
    return {
        "arm": arm,
        "seed": run.config.training.seed,
        "key": run.config.digest(),
        "epochs": last,
        "precisions": {
            policy: metrics.row_scores(ranking, data.valid_qrels, metric)
            for policy, ranking in rankings_by_policy.items()
        },
        "unseen": sorted(data.split.unseen),
        "seconds_per_step": statistics.median(steps) if steps else None,
        "peak_gib": trained.facts["peak_gib"],
        "held_gib": trained.facts["held_gib"],
        "losses": [trained.facts["losses"][index] for index in (0, -1)],
        "device": encoder.device.type,
        "environment": trained.environment,
        **_tokens(run, encoder, data),
    }


def _fixed(run: Run, encoder: Encoder, data: Dataset) -> Ranking:
    """Return the ranking of the validation rows, all with the same examples."""
    prompt = run.config.prompt.model_copy(update={"examples": "fixed"})
    config = run.config.model_copy(update={"prompt": prompt})
    ranking = evaluation.score(encoder, config, data).ranking
    assert ranking is not None  # training ranked the validation rows
    return ranking


def _tokens(run: Run, encoder: Encoder, data: Dataset) -> dict[str, float]:
    """Count steps, rows, packed tokens and tokens without prefix sharing of the first epoch."""
    mined = negatives.read(run.workspace.stage("mine", run.round) / "negatives.jsonl", data.corpus)
    planned, _ = training_plan.build_training_plan(encoder, run.config, data, mined, "")
    batches = planned.epochs[0]
    packed = plain = 0
    for batch in batches:
        queries, answers = planned.tokens(batch)
        sequences = [*queries, *answers]
        packed += sum(map(len, encoder.packs(sequences)))
        plain += sum(map(len, sequences))
    rows = sum(len(batch.query_ids) for batch in batches)
    return {"steps": len(batches), "rows": rows, "packed_tokens": packed, "plain_tokens": plain}


def main(words: Sequence[str]) -> int:
    """Run one trial and write its outcome; return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.trial", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--arm", required=True, choices=sorted(ARMS))
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    arguments = parser.parse_args(words)
    try:
        files.write_json(arguments.out, trial(arguments.file, arguments.arm, tuple(arguments.sets)))
    except ParityError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
