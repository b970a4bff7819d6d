"""5. Adapter → ranking of the test rows → submission.csv."""

from parity.competition import ranking as rankings
from parity.competition.eedi import submission
from parity.pipeline import dataset, encoder_loading
from parity.pipeline.stage import stage_context
from parity.retrieval.engine.distributed import launched
from parity.retrieval.retrieve import index, retrieve
from parity.run.experiment import Run


def predict(run: Run) -> None:
    """Rank the corpus for every row of the sample and write the submission, checked twice."""
    workers = launched()
    with stage_context(run, "predict", main=workers.main) as work:
        known = dataset.load(run)
        encoder = encoder_loading.keeping(run, run.workspace.adapter(run.round), workers)
        shown = dataset.shown(known, run.config.prompt, known.test)
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
