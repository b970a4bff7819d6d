"""1. The competition's files → queries, corpus, labels, split, few-shot examples, probe."""

from collections.abc import Iterator
from typing import Any

from parity.competition import corpus, few_shot, probe, query
from parity.competition.base import CompetitionData
from parity.competition.splits import near_duplicates
from parity.competition.splits import split as splits
from parity.competition.splits.split import Split
from parity.pipeline.dataset import open_competition
from parity.pipeline.stage import stage_context
from parity.run import files
from parity.run.errors import BadData
from parity.run.experiment import Run
from parity.run.progress import wrap


def prepare(run: Run) -> None:
    """Read and check the competition's files, split the units, and write the datasets.

    Raises:
        BadData: a file is missing or wrong; the message has file, row and column.
        BadConfig: the training or the validation set would be empty.
    """
    source = run.source
    if not source.is_dir():
        raise BadData(
            f"data.source = {str(source)!r}: no such folder. Put the competition's files there, or "
            "set their folder with --set data.source=FOLDER"
        )
    competition = open_competition(run.config.competition, run.config.prompt)
    competition.check_split(run.config.split)
    read = competition.read(source)
    split = splits.make(read.queries, read.qrels, run.config.split)
    pool = few_shot.pool(read.queries, read.qrels, read.corpus, split)
    duplicates = _duplicates(read, split)
    probed = probe.choose(read.queries)
    with stage_context(run, "prepare", inputs=read.files) as work:
        query.write_queries(work.out("queries.jsonl"), read.queries)
        query.write_queries(work.out("test_queries.jsonl"), read.test)
        corpus.write_qrels(work.out("qrels.jsonl"), read.qrels, read.corpus)
        corpus.write_corpus(work.out("corpus.jsonl"), read.corpus)
        split.write(work.out(f"splits/{split.name}.json"))
        few_shot.write(work.out("examples.jsonl"), pool, read.corpus)
        files.write_jsonl(work.out("probe.jsonl"), ({"query_id": item.query_id} for item in probed))
        work.facts = {
            "queries": len(read.queries),
            "test": len(read.test),
            "passages": len(read.corpus),
            "train_units": len(split.train),
            "valid_units": len(split.valid),
            "unseen_rows": len(split.unseen),
            **duplicates,
        }
    print(
        f"{len(read.queries)} labeled rows, {len(read.test)} rows to predict, "
        f"{len(read.corpus)} passages"
    )
    print(splits.describe(split, read.queries, read.qrels))
    for line in _duplicate_lines(duplicates):
        print(wrap(line))


def _duplicates(read: CompetitionData, split: Split) -> dict[str, Any]:
    """Return how many texts of validation set and test stand in train, or nearly do."""
    texts = {query.unit: query.identity for query in read.queries}
    test = {query.unit: query.identity for query in read.test}
    train, valid = ({unit: texts[unit] for unit in side} for side in (split.train, split.valid))
    near = near_duplicates.near_pairs(valid, train)
    return {
        "near_pairs": len(near),
        "near_pair": [near[0].first, near[0].second, near[0].cosine] if near else [],
        "test_units": len(test),
        "test_in_train": len(near_duplicates.equal_units(test, texts)),
    }


def _duplicate_lines(duplicates: dict[str, Any]) -> Iterator[str]:
    """Yield what a score should be read with."""
    if duplicates["near_pairs"]:
        first, second, cosine = duplicates["near_pair"]
        yield (
            f"near duplicates: {duplicates['near_pairs']} pairs of a validation and a train text "
            f"with a cosine over {near_duplicates.THRESHOLD} (closest: {first} and {second}, "
            f"{cosine:.3f}); scores of these rows may be too high"
        )
    if duplicates["test_in_train"]:
        yield (
            f"{duplicates['test_in_train']} of {duplicates['test_units']} test texts stand in the "
            "labeled rows"
        )
