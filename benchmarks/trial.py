"""One arm with one seed, in a process of its own: the stages, then what is compared.

Negatives are drawn here and imported by `mine`, so that no query is encoded for them. Scored is the
last epoch, never the best one: choosing it by the valid rows would flatter an arm.
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
from parity.__main__ import main as parity
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
"""How valid queries are asked: as the arm's own setting says, or all behind the same examples."""


def trial(file: Path, arm: str, sets: tuple[str, ...]) -> dict[str, Any]:
    """Train and score one arm; return what `effects` reads.

    Args:
        file: a run file of this arm and seed alone.
        arm: its name.
        sets: all overrides.

    Raises:
        SystemExit: a stage failed; it has said why.
        BadConfig: negatives would have to be mined with a model.
        Mismatch: the engine did not run the sequences apart though the arm says so.
    """
    run = open_run(file, sets)
    if run.config.mining.strategy != "random":
        raise BadConfig(f"{file}: mining.strategy must be 'random', which needs no model")
    _stage("prepare", run)
    _stage("mine", run, "--import", str(_draw(run, dataset.load(run))))
    with _packed(ARMS[arm].masks), _timed() as ended:
        _stage("train", run)
        found = _outcome(run, arm, ended)
    if ARMS[arm].masks == "apart" and found["packed_tokens"] != found["plain_tokens"]:
        raise Mismatch("sequences meant to run apart shared tokens: mend benchmarks/trial.py")
    return found


def apart(sequences: Sequence[Sequence[int]], budget: int) -> list[Pack]:
    """Return packs as `trie.pack` does, each sequence on a path of its own: nothing is shared.

    Args:
        sequences: token ids; none may be empty.
        budget: nodes in a pack; a longer sequence is a pack alone.
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
    """Let the engine share prefixes, or put `apart` in the place of its packing.

    Raises:
        Mismatch: the engine packs by another way, so that prefixes were shared all the same.
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
        raise Mismatch("the engine does not pack by trie.pack any more: mend benchmarks/trial.py")


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Yield a list that fills with the time at which each optimizer step ended."""
    ended: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: ended.append(time.monotonic()))
    try:
        yield ended
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


def _draw(run: Run, known: Dataset) -> Path:
    """Write the arm's negatives as FlagEmbedding's file; return its path."""
    rows = tuple(query.query_id for query in known.train)
    any_id = np.full((len(rows), 1), min(known.corpus), dtype=np.int64)
    mined = negatives.mine(
        Ranking(rows, any_id, np.zeros((len(rows), 1), dtype=np.float32)),
        known.qrels,
        known.corpus,
        run.config.mining,
        positives=known.positives,
        miner="none",
    )
    prompt = run.config.prompt
    path = run.workspace.root / "drawn.jsonl"
    exported = flagembedding.export_rows(
        mined,
        known.qrels,
        texts={query.query_id: prompts.bare(prompt, query) for query in known.train},
        passages={key: prompts.passage(prompt, text) for key, text in known.corpus.items()},
        instruction=prompt.instruction,
        ranking=None,
    )
    files.write_jsonl(path, exported)
    return path


def _outcome(run: Run, arm: str, ended: list[float]) -> dict[str, Any]:
    known = dataset.load(run)
    folder = run.workspace.stage("train", run.round)
    last = max(int(path.stem.rpartition("-")[2]) for path in folder.glob("ranking-*.jsonl"))
    encoder = encoder_loading.encoder(run, folder / f"epoch-{last}")
    found = {OWN: rankings.read(folder / f"ranking-{last}.jsonl")}
    if run.config.prompt.examples != "none":
        found[FIXED] = _fixed(run, encoder, known)
    k = min(evaluation.K, len(known.corpus))
    trained = manifests.require(folder, run.command("train"))
    steps = [later - before for before, later in pairwise(ended)]
    return {
        "arm": arm,
        "seed": run.config.training.seed,
        "key": run.config.digest(),
        "epochs": last,
        "precisions": {
            policy: metrics.average_precisions(ranking, known.valid_qrels, k=k)
            for policy, ranking in found.items()
        },
        "unseen": sorted(known.split.unseen),
        "seconds_per_step": statistics.median(steps) if steps else None,
        "peak_gib": trained.facts["peak_gib"],
        "held_gib": trained.facts["held_gib"],
        "losses": [trained.facts["losses"][place] for place in (0, -1)],
        "device": encoder.device.type,
        "environment": trained.environment,
        **_tokens(run, encoder, known),
    }


def _fixed(run: Run, encoder: Encoder, known: Dataset) -> Ranking:
    """Return the ranking of the valid rows, all of them behind the same examples."""
    prompt = run.config.prompt.model_copy(update={"examples": "fixed"})
    config = run.config.model_copy(update={"prompt": prompt})
    ranking = evaluation.score(encoder, config, known).ranking
    assert ranking is not None  # there are valid rows: training ranked them
    return ranking


def _tokens(run: Run, encoder: Encoder, known: Dataset) -> dict[str, float]:
    """Count the first epoch: steps, rows, tokens computed, and tokens with nothing shared."""
    mined = negatives.read(run.workspace.stage("mine", run.round) / "negatives.jsonl")
    planned, _ = training_plan.build_training_plan(encoder, run.config, known, mined, "")
    batches = planned.epochs[0]
    packed = plain = 0
    for batch in batches:
        asked, answers = planned.tokens(batch)
        sequences = [*asked, *answers]
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
    asked = parser.parse_args(words)
    try:
        files.write_json(asked.out, trial(asked.file, asked.arm, tuple(asked.sets)))
    except ParityError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
