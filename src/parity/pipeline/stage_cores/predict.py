"""5. Adapter → ranking of the test rows → submission.csv."""

from parity.competition import ranking as rankings
from parity.pipeline import dataset, encoder_loading
from parity.pipeline.stage import stage_context
from parity.retrieval.engine.distributed import current_group
from parity.retrieval.retrieve import index, retrieve
from parity.run.experiment import Run


def predict(run: Run) -> None:
    """Rank the corpus for every row of the test, and write and check the submission."""
    workers = current_group()
    with stage_context(run, "predict", main=workers.is_main) as work:
        data = dataset.load(run.config, run.workspace)
        encoder = encoder_loading.load_caching_encoder(
            run.config.encoder, run.workspace, run.workspace.adapter(run.round), workers
        )
        shown = dataset.shown(data, run.config.prompt, data.test)
        corpus = index(encoder, run.config.prompt, data.corpus)
        retrieval = retrieve(encoder, run.config.prompt, data.test, corpus, shown, k=data.metric.k)
        if not workers.is_main:
            return
        print(f"test: {retrieval.queries.summary()}")
        rankings.write(work.out("ranking.jsonl"), retrieval.ranking)
        competition = data.competition
        path = work.out(competition.submission.file)
        sha256 = competition.write_submission(path, retrieval.ranking, data.test, data.corpus)
        work.facts = {"sha256": sha256, "speed": encoder.speed(), "took": encoder.embedding_stats()}
        print(f"{len(data.test)} rows of {data.metric.k} ids: {path}")
