"""5. Adapter → ranking of the test rows → submission.csv."""

from parity.competition import ranking as rankings
from parity.competition import submission
from parity.retrieval.retrieve import index, retrieve
from parity.retrieval.workers import launched
from parity.stages import load, nouns
from parity.stages.run import Run
from parity.stages.work import working


def predict(run: Run) -> None:
    """Rank the corpus for every row of the sample and write the submission, checked twice."""
    workers = launched()
    with working(run, "predict", main=workers.main) as work:
        known = nouns.load(run)
        encoder = load.keeping(run, run.workspace.adapter(run.round), workers)
        shown = nouns.shown(known, run.config.prompt, known.test)
        corpus = index(encoder, run.config.prompt, known.corpus)
        found = retrieve(encoder, run.config.prompt, known.test, corpus, shown, k=submission.K)
        if not workers.main:
            return
        print(f"test: {found.asked.summary()}")
        rankings.write(work.out("ranking.jsonl"), found.ranking)
        sample = [query.query_id for query in known.test]
        path = work.out(submission.NAME)
        sha256 = submission.write(path, found.ranking, sample, known.corpus)
        work.facts = {"sha256": sha256, "speed": encoder.speed(), "took": encoder.took()}
        print(f"{len(sample)} rows of {min(submission.K, len(known.corpus))} ids: {path}")
