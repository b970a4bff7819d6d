"""Score one model under the settings of one evaluation, and record the score as evidence."""

from dataclasses import dataclass
from pathlib import Path

from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage
from parity.competition.scoring.metrics import Scores
from parity.pipeline import (
    dag,
    dataset,
    encoder_loading,
    evaluation,
    evaluations,
    evidence,
    token_memory,
)
from parity.pipeline.evaluation import CleanRows, Evaluation
from parity.pipeline.model_reference import BEST, Model
from parity.pipeline.stage import StageContext, stage_context
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine.distributed import ProcessGroup
from parity.run import files, ledger
from parity.run import manifest as manifests
from parity.run.config import stage_settings
from parity.run.config.encoder import EncoderConfig
from parity.run.errors import Mismatch
from parity.run.experiment import Run
from parity.run.ledger import Evidence
from parity.run.progress import wrap


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation to compute.

    Attributes:
        run: run at the model's round, with the settings of the evaluation.
        model: model to score.
    """

    run: Run
    model: Model

    @property
    def label(self) -> str:
        """Model and evaluation, such as `epoch-4@bnb4`."""
        return dag.evaluation_label(self.model, self.run)

    def label_of(self, rows: CleanRows) -> str:
        """Return the label of a score; a contaminated one does not replace a clean one."""
        folder = dag.evaluation_folder(self.run, self.model)
        has_clean = rows.status == "contaminated" and evaluations.read(folder)
        return f"{self.label}+contaminated" if has_clean else self.label


class EncoderCache:
    """The encoder of the last job, which the next one may share."""

    def __init__(self, workers: ProcessGroup) -> None:
        self._workers = workers
        self._key: tuple[EncoderConfig, Path | None] | None = None
        self._encoder: Encoder | None = None

    def load(self, job: Job) -> Encoder:
        """Return the encoder of a job."""
        key = (job.run.config.encoder, job.model.folder)
        if self._encoder is None or key != self._key:
            self._encoder = None  # first free the memory of the one before
            self._encoder = encoder_loading.load_caching_encoder(
                job.run.config.encoder, job.run.workspace, job.model.folder, self._workers
            )
            self._key = key
        return self._encoder


def score_model(
    job: Job,
    encoders: EncoderCache,
    workers: ProcessGroup,
    *,
    accept_contaminated: bool = False,
    is_quiet: bool = False,
) -> None:
    """Score one model, and write its files and its evidence."""
    run = job.run
    with stage_context(run, "eval", model=job.model.reference, main=workers.is_main) as work:
        data = dataset.load(run.config, run.workspace)
        evaluation.need_valid(data)
        lineage = Lineage.of_adapter(job.model.folder)
        rows = evaluation.clean_rows(data, lineage, accept_contaminated=accept_contaminated)
        label = job.label_of(rows)
        work.folder = run.workspace.evaluation(run.round, label)
        encoder = encoders.load(job)
        scored = evaluation.score(encoder, run.config, rows.data)
        if not workers.is_main or scored.scores is None:
            return
        if rows.data.split == data.split:  # else rows, or the labels it has seen, are others
            _as_in_training(job, scored.scores)
        if not is_quiet:
            _print_progress(job, rows, scored, encoder)
        elif rows.line:
            print(f"{label}: scored on {rows.line}")
        work.facts["layers"] = {
            **evidence.data_layers(run.workspace, rows.data, lineage),
            **scored.probed.layers,
        }
        _write(job, label, work, rows, encoder, scored)
        _add_evidence(job, label, work, rows, encoder, scored)
    if rows.status == "contaminated" and not is_quiet:
        print("CONTAMINATED: trained on rows it was scored on; left out of every table and chart")
        print(f"{label}: {_describe(scored.scores)}")


def _describe(scores: Scores) -> str:
    """Return score and recall of all rows in a few words."""
    pair = ((scores.metric.title, scores.all.score), (f"recall@{scores.k}", scores.all.recall))
    return ", ".join(f"{title} {interval.value:.4f}" for title, interval in pair if interval)


def _print_progress(job: Job, rows: CleanRows, scored: Evaluation, encoder: Encoder) -> None:
    if rows.line:
        print(f"scored on {rows.line}")
    print(f"valid: {scored.rendering}")
    for line in encoder_loading.convention_notes(job.run.config, job.run.workspace):
        print(wrap(line))
    stats = encoder.stats_by_label
    parts = [
        f"{item.sequences} {name} {'from the cache' if item.cached else 'computed'}"
        for name, item in (
            ("passages", stats["encode the corpus"]),
            ("queries", stats["encode the queries"]),
        )
    ]
    print(f"embeddings: {', '.join(parts)}")


def _write(
    job: Job, label: str, work: StageContext, rows: CleanRows, encoder: Encoder, scored: Evaluation
) -> None:
    """Write ranking, probe, scores and facts of an evaluation."""
    assert scored.ranking is not None  # there are validation rows
    assert scored.scores is not None
    data = rows.data
    rankings.write(work.out("ranking.jsonl"), scored.ranking)
    rankings.write(work.out("probe_ranking.jsonl"), scored.probed.retrieval.ranking)
    files.write_array(work.out("probe.npy"), scored.probed.retrieval.vectors)
    evidence.keep_texts(job.run.workspace.texts(job.run.round, label), scored.probed)
    by_method = {**evaluation.lexical(job.run.config, data), label: scored.scores}
    files.write_json(
        work.out(evaluations.SCORES),
        {
            "status": rows.status,
            "label": label,
            "rows": rows.rows,
            "total": rows.total,
            "unseen": sorted(data.split.unseen),
            "scores": {name: scores.as_json() for name, scores in by_method.items()},
        },
    )
    work.facts |= {"status": rows.status, "adapter": encoder.adapter}
    work.facts |= {"speed": encoder.speed(), "took": encoder.embedding_stats()}
    token_memory.log_memory_of_lists(
        job.run.workspace.bytes_per_token,
        job.run.config,
        "base" if job.model.folder is None else "adapter",
        work.facts,
    )


def _add_evidence(
    job: Job,
    label: str,
    work: StageContext,
    rows: CleanRows,
    encoder: Encoder,
    scored: Evaluation,
) -> None:
    """Append the score to the ledger, with the digests of all layers."""
    run = job.run
    assert scored.scores is not None
    record = Evidence(
        run=run.config.name,
        round=run.round,
        label=label,
        kind="cv",
        status=rows.status,
        layers=work.facts["layers"],
        score=scored.scores.as_json(),
        facts=evidence.facts(run.config, rows.data, encoder, scored),
        made=ledger.utc_now(),
    )
    texts = run.workspace.texts(run.round, label)
    evidence.append(run.workspace, run.config, record, work.folder, texts)


def _as_in_training(job: Job, scores: Scores) -> None:
    """Check that the score equals the one from training, to the last digit.

    Raises:
        Mismatch: the scores differ although their settings are equal.
    """
    config = job.run.config
    folder = job.run.workspace.stage("train", job.run.round)
    trained = manifests.read(folder) if job.model.trained else None
    if trained is None or trained.facts["scored_with"] != stage_settings.settings_digest(config):
        return  # scored under other settings
    is_best = job.model.label == BEST
    name = f"epoch-{trained.facts['best_epoch']}" if is_best else job.model.label
    record = folder / f"{name}.json"
    before = files.read_json(record)["scores"] if record.is_file() else None
    if before is None or before == scores.as_json():
        return
    if trained.config["encoder"] == config.encoder.model_dump(mode="json"):
        raise Mismatch(
            f"the score of {name} differs between eval and train; use as many threads and "
            f"processes (OMP_NUM_THREADS={trained.facts['threads']}, "
            f"{trained.facts['processes']} processes)",
            fix=job.run.command_words("eval", "--model", job.model.label),
        )
    print(f"{name}: differs from the score in training, which used another device or token budget")
