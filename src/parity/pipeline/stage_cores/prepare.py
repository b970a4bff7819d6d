"""1. The competition's files → queries, corpus, labels, split, few-shot examples, probe."""

from parity.competition import corpus, few_shot, probe, query
from parity.competition.splits import split as splits
from parity.pipeline.dataset import open_competition
from parity.pipeline.stage import stage_context
from parity.run import files
from parity.run.errors import BadData
from parity.run.experiment import Run


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
        }
    print(
        f"{len(read.queries)} labeled rows, {len(read.test)} rows to predict, "
        f"{len(read.corpus)} passages"
    )
    print(splits.describe(split, read.queries, read.qrels))
