"""4. Adapter → scores of all, seen and unseen rows → evidence `cv`."""

import re
from pathlib import Path

from parity.analysis.report.tables import scores_table
from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage, Status, groups, guard
from parity.competition.scoring.baselines import METHODS
from parity.competition.scoring.metrics import Scores
from parity.competition.scoring.significance import compare
from parity.pipeline import dag, dataset, encoder_loading, evaluation, evidence, token_memory
from parity.pipeline.dataset import Dataset
from parity.pipeline.stage import stage_context
from parity.retrieval.engine.distributed import current_group
from parity.run import files, ledger
from parity.run import manifest as manifests
from parity.run.config.encoder import EncoderConfig
from parity.run.errors import BadConfig, Contaminated, Mismatch, StaleInput
from parity.run.experiment import Run, open_run
from parity.run.ledger import Evidence
from parity.run.manifest import Manifest
from parity.run.paths import RunPaths

BASE = "base"
BEST = "best"


def evaluate(
    run: Run, label: str = BEST, *, against: Path | None = None, accept_contaminated: bool = False
) -> None:
    """Score one adapter on the validation set, together with the lexical baselines.

    Args:
        run: run at its round.
        label: `best`, `base` or `epoch-N`.
        against: run file of another run, to compare this adapter with its best one.
        accept_contaminated: whether to score rows that the adapter was trained on; such scores
            appear in no table.

    Raises:
        Contaminated: the adapter was trained on rows of the validation set.
        BadConfig: the validation set is empty, or there is no such adapter.
    """
    workers = current_group()
    if label not in (BEST, BASE) and re.fullmatch(r"epoch-[1-9][0-9]*", label) is None:
        raise BadConfig(f"--adapter {label} must be {BEST}, {BASE} or epoch-N")
    folder = run.workspace.evaluation(run.round, label)
    with stage_context(run, "eval", folder=folder, main=workers.is_main) as work:
        data = dataset.load(run.config, run.workspace)
        evaluation.need_valid(data)
        adapter = _adapter(run.workspace, run.round, label)
        lineage = lineage_of(adapter)
        status = guard(
            lineage,
            data.split.valid,
            groups=groups(data.queries),
            accept_contaminated=accept_contaminated,
        )
        encoder = encoder_loading.load_caching_encoder(
            run.config.encoder, run.workspace, adapter, workers
        )
        scored = evaluation.score(encoder, run.config, data)
        if not workers.is_main or scored.scores is None or scored.ranking is None:
            return
        _as_in_training(
            work.required[dag.label_of("train", run)],
            dag.folder(run, "train"),
            run.config.encoder,
            label,
            scored.scores,
            run.command_words("eval", "--adapter", label),
        )
        print(f"valid: {scored.rendering}")
        rankings.write(work.out("ranking.jsonl"), scored.ranking)
        rankings.write(work.out("probe_ranking.jsonl"), scored.probed.retrieval.ranking)
        files.write_array(work.out("probe.npy"), scored.probed.retrieval.vectors)
        evidence.keep_texts(run.workspace.texts(run.round, label), scored.probed)
        rows = {**evaluation.lexical(run.config, data), label: scored.scores}
        record = {name: scores.as_json() for name, scores in rows.items()}
        files.write_json(work.out("scores.json"), {"status": status, "scores": record})
        work.facts = {"status": status, "adapter": encoder.adapter}
        work.facts |= {"speed": encoder.speed(), "took": encoder.embedding_stats()}
        token_memory.log_memory_of_lists(
            run.workspace.bytes_per_token,
            run.config,
            "base" if adapter is None else "adapter",
            work.facts,
        )
        evidence.append(
            run.workspace,
            run.config,
            Evidence(
                run=run.config.name,
                round=run.round,
                label=label,
                kind="cv",
                status=status,
                layers={
                    **evidence.data_layers(run.workspace, data, lineage),
                    **scored.probed.layers,
                },
                score=scored.scores.as_json(),
                facts=evidence.facts(run.config, data, encoder, scored),
                made=ledger.utc_now(),
            ),
            work.folder,
            run.workspace.texts(run.round, label),
        )
        _print_scores(status, rows)
    if against is not None and workers.is_main:
        print(_against(run, data, label, open_run(against)))


def read(folder: Path) -> dict[str, Scores]:
    """Return the scores in an evaluation's folder by method; empty if missing or contaminated."""
    if manifests.read(folder) is None:
        return {}  # not finished: its files are from an earlier evaluation
    record = files.read_json(folder / "scores.json")
    if record["status"] != "clean":
        return {}
    order = [*METHODS, folder.name]
    return {name: Scores.from_json(record["scores"][name]) for name in order}


def lineage_of(adapter: Path | None) -> Lineage:
    """Return the questions an adapter was trained on; unknown without a lineage file."""
    if adapter is None:
        return Lineage(frozenset())
    path = adapter / "lineage.json"
    return Lineage.read(path) if path.is_file() else Lineage(None)


def _adapter(paths: RunPaths, round_: int, label: str) -> Path | None:
    if label == BASE:
        return None
    if label == BEST:
        return paths.adapter(round_)
    folder = paths.stage("train", round_) / label
    if not folder.is_dir():
        labels = sorted(path.name for path in folder.parent.glob("epoch-*") if path.is_dir())
        raise BadConfig(f"--adapter {label} must be {BEST}, {BASE} or one of {', '.join(labels)}")
    return folder


def _print_scores(status: Status, rows: dict[str, Scores]) -> None:
    print(scores_table(list(rows.items()), style="text"))
    if status == "contaminated":
        print("CONTAMINATED: trained on rows it was scored on; left out of every table and chart")


def _as_in_training(
    trained: Manifest,
    folder: Path,
    config: EncoderConfig,
    label: str,
    scores: Scores,
    fix: tuple[str, ...],
) -> None:
    """Check that the score equals the one from training, to the last digit.

    Raises:
        Mismatch: the scores differ although their settings are equal.
    """
    name = f"epoch-{trained.facts['best_epoch']}" if label == BEST else label
    record = folder / f"{name}.json"
    before = files.read_json(record)["scores"] if record.is_file() else None
    if before is None or before == scores.as_json():
        return
    if trained.config["encoder"] == config.model_dump(mode="json"):
        raise Mismatch(
            f"the score of {name} differs between eval and train; use as many threads and "
            f"processes (OMP_NUM_THREADS={trained.facts['threads']}, "
            f"{trained.facts['processes']} processes)",
            fix=fix,
        )
    print(f"{name}: differs from the score in training, which used another device or token budget")


def _against(run: Run, data: Dataset, label: str, other: Run) -> str:
    """Compare with another run's best adapter, on the rows that both were scored on."""
    other = other.at(run.round)
    folder = run.workspace.evaluation(run.round, label)
    other_folder = other.workspace.evaluation(run.round, BEST)
    standing = dag.StageGraph().standing(other, "eval")
    if standing.state != "done":
        problem = f"a stale score ({standing.reason})" if standing.reason else "no score"
        raise StaleInput(f"{other.config.name} has {problem}", fix=other.command_words("eval"))
    if not (read(folder) and read(other_folder)):
        raise Contaminated(
            "one of the two was trained on rows it was scored on; such scores are not compared"
        )
    first = rankings.read(folder / "ranking.jsonl")
    second = rankings.read(other_folder / "ranking.jsonl")
    if set(first.query_ids) != set(second.query_ids):
        raise Mismatch(
            f"{run.config.name} and {other.config.name} were scored on different rows "
            f"(splits {run.config.split.name} and {other.config.split.name}). "
            "Use the same split in both"
        )
    result = compare(
        first, second, data.valid_qrels, data.split.unseen, run.config.scoring, data.metric
    )
    estimate = result.projection or result.all
    better = {"a is better": run, "b is better": other}.get(result.result)
    conclusion = f"{better.config.name} is better" if better else result.result
    lines = [
        f"{run.config.name} against {other.config.name}: {conclusion} "
        f"(difference {estimate.value:+.4f}, 95 % {estimate.low:+.4f} to {estimate.high:+.4f})",
        *result.findings,
    ]
    return "\n".join(lines)
