"""5. Adapter → ranking of the test rows → submission.csv."""

from parity.competition import ranking as rankings
from parity.pipeline import dag, dataset, encoder_loading
from parity.pipeline.stage import stage_context
from parity.retrieval.engine.distributed import current_group
from parity.retrieval.retrieve import index, retrieve
from parity.run.experiment import Run


def predict(run: Run, model: str = "", evaluation: str = "") -> None:
    """Rank the corpus for every row of the test, and write and check the submission.

    Args:
        run: run at its round.
        model: reference of the model; empty is the round's best adapter.
        evaluation: name of the evaluation whose settings are used; empty uses those of the run.
    """
    workers, run = current_group(), run.evaluated_as(evaluation)
    with stage_context(run, "predict", model=model, main=workers.is_main) as work:
        assert work.model is not None
        data = dataset.load(run.config, run.workspace)
        encoder = encoder_loading.load_caching_encoder(
            run.config.encoder, run.workspace, work.model.folder, workers
        )
        shown = dataset.shown(data, run.config.prompt, data.test)
        corpus = index(encoder, run.config.prompt, data.corpus)
        retrieval = retrieve(encoder, run.config.prompt, data.test, corpus, shown, k=data.metric.k)
        if not workers.is_main:
            return
        print(f"ranked by {dag.evaluation_label(work.model, run)}")
        print(f"test: {retrieval.queries.summary()}")
        rankings.write(work.out("ranking.jsonl"), retrieval.ranking)
        competition = data.competition
        path = work.out(competition.submission.file)
        sha256 = competition.write_submission(path, retrieval.ranking, data.test, data.corpus)
        work.facts = {"sha256": sha256, "speed": encoder.speed(), "took": encoder.embedding_stats()}
        print(f"{len(data.test)} rows of {data.metric.k} ids: {path}")
