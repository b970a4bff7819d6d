"""1. Kaggle's files → queries, corpus, qrels, split, few-shot examples, probe."""

from pathlib import Path

from parity.competition import corpus, few_shot, probe, query
from parity.competition.eedi import kaggle_files
from parity.competition.splits import split as splits
from parity.pipeline.stage import stage_context
from parity.run import files
from parity.run.errors import BadData
from parity.run.experiment import Run


def prepare(run: Run) -> None:
    """Read and check the competition's files, part the questions, and write the nouns.

    Raises:
        BadData: a file is missing or wrong; names file, row and column.
        BadConfig: the split leaves a side empty.
    """
    source = Path(run.config.data.source)
    if not source.is_dir():
        raise BadData(
            f"data.source = {str(source)!r}: no such folder; put Kaggle's four files there, or "
            "name theirs with --set data.source=FOLDER"
        )
    read = kaggle_files.read(source)
    split = splits.make(read.queries, read.qrels, run.config.split)
    pool = few_shot.pool(read.queries, read.qrels, read.corpus, split)
    probed = probe.choose(read.queries)
    with stage_context(run, "prepare", inputs=read.files) as work:
        query.write_queries(work.out("queries.jsonl"), read.queries)
        query.write_queries(work.out("test_queries.jsonl"), read.test)
        query.write_qrels(work.out("qrels.jsonl"), read.qrels)
        corpus.write_corpus(work.out("corpus.jsonl"), read.corpus)
        split.write(work.out(f"splits/{split.name}.json"))
        few_shot.write(work.out("examples.jsonl"), pool)
        files.write_jsonl(work.out("probe.jsonl"), ({"query_id": one.query_id} for one in probed))
        work.facts = {
            "queries": len(read.queries),
            "test": len(read.test),
            "misconceptions": len(read.corpus),
            "train_questions": len(split.train),
            "valid_questions": len(split.valid),
            "unseen_rows": len(split.unseen),
        }
    print(
        f"{len(read.queries)} labeled rows, {len(read.test)} rows to predict, "
        f"{len(read.corpus)} misconceptions"
    )
    print(splits.describe(split, read.queries, read.qrels))
