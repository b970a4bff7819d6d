"""4. Adapter → MAP@25 and Recall@25 of all, seen, unseen → evidence `cv`."""

import re
from pathlib import Path

from parity.analysis.report.tables import scores_table
from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage, Status, groups, guard
from parity.competition.scoring.baselines import METHODS
from parity.competition.scoring.metrics import Scores
from parity.competition.scoring.significance import compare
from parity.pipeline import dag, dataset, encoder_loading, evaluation, evidence
from parity.pipeline.command_cores import local_plan
from parity.pipeline.dataset import Dataset
from parity.pipeline.stage import StageContext, stage_context
from parity.retrieval.engine.distributed import launched
from parity.run import files, ledger
from parity.run import manifest as manifests
from parity.run.errors import BadConfig, Contaminated, Mismatch, StaleInput
from parity.run.experiment import Run, open_run
from parity.run.ledger import Evidence

BASE = "base"
BEST = "best"


def evaluate(
    run: Run, label: str = BEST, *, against: Path | None = None, accept_contaminated: bool = False
) -> None:
    """Score one adapter on the split's valid rows, beside the lexical baselines.

    Args:
        run: the run at its round.
        label: `best`, `base` or `epoch-N`.
        against: another run file, whose best adapter is compared with this one.
        accept_contaminated: score rows that the adapter was trained on; kept out of every table.

    Raises:
        Contaminated: the adapter was trained on rows it is to be scored on.
        BadConfig: the split holds nothing out, or there is no such adapter.
    """
    workers = launched()
    if label not in (BEST, BASE) and re.fullmatch(r"epoch-[1-9][0-9]*", label) is None:
        raise BadConfig(f"--adapter {label}: want {BEST}, {BASE} or epoch-N")
    place = run.workspace.evaluation(run.round, label)
    with stage_context(run, "eval", folder=place, main=workers.main) as work:
        known = dataset.load(run)
        evaluation.need_valid(known)
        adapter = _adapter(run, label)
        lineage = lineage_of(adapter)
        status = guard(
            lineage,
            known.split.valid,
            groups=groups(known.queries),
            accept_contaminated=accept_contaminated,
        )
        encoder = encoder_loading.keeping(run, adapter, workers)
        scored = evaluation.score(encoder, run.config, known)
        if not workers.main or scored.scores is None or scored.ranking is None:
            return
        _as_in_training(run, work, label, scored.scores)
        print(f"valid: {scored.asked}")
        rankings.write(work.out("ranking.jsonl"), scored.ranking)
        rankings.write(work.out("probe_ranking.jsonl"), scored.probed.found.ranking)
        files.write_array(work.out("probe.npy"), scored.probed.found.vectors)
        evidence.keep_texts(run, scored.probed, label)
        rows = {**evaluation.lexical(run.config, known), label: scored.scores}
        record = {name: scores.as_json() for name, scores in rows.items()}
        files.write_json(work.out("scores.json"), {"status": status, "scores": record})
        work.facts = {"status": status, "adapter": encoder.adapter}
        work.facts |= {"speed": encoder.speed(), "took": encoder.took()}
        local_plan.note_lists(run, "base" if adapter is None else "adapter", work.facts)
        evidence.append(
            run,
            Evidence(
                run=run.config.name,
                round=run.round,
                label=label,
                kind="cv",
                status=status,
                layers={
                    **evidence.data_layers(run, known, lineage),
                    **scored.probed.layers,
                },
                score=scored.scores.as_json(),
                facts=evidence.facts(run, known, encoder, scored),
                made=ledger.now(),
            ),
            work.folder,
            run.workspace.texts(run.round, label),
        )
        _tell(status, rows)
    if against is not None and workers.main:
        print(_against(run, known, label, open_run(against)))


def read(run: Run, label: str) -> dict[str, Scores]:
    """Return an evaluation's scores by method; empty if it is missing or contaminated."""
    folder = run.workspace.evaluation(run.round, label)
    if manifests.read(folder) is None:
        return {}  # not finished: what lies there is of an earlier one
    record = files.read_json(folder / "scores.json")
    if record["status"] != "clean":
        return {}
    order = [*METHODS, label]
    return {name: Scores.from_json(record["scores"][name]) for name in order}


def lineage_of(adapter: Path | None) -> Lineage:
    """Return what an adapter was trained on; unknown where its folder does not say."""
    if adapter is None:
        return Lineage(frozenset())
    path = adapter / "lineage.json"
    return Lineage.read(path) if path.is_file() else Lineage(None)


def _adapter(run: Run, label: str) -> Path | None:
    if label == BASE:
        return None
    if label == BEST:
        return run.workspace.adapter(run.round)
    folder = run.workspace.stage("train", run.round) / label
    if not folder.is_dir():
        there = sorted(path.name for path in folder.parent.glob("epoch-*") if path.is_dir())
        raise BadConfig(f"--adapter {label}: want {BEST}, {BASE} or one of {', '.join(there)}")
    return folder


def _tell(status: Status, rows: dict[str, Scores]) -> None:
    print(scores_table(list(rows.items()), style="text"))
    if status == "contaminated":
        print("CONTAMINATED: trained on rows it was scored on; kept out of every table and chart")


def _as_in_training(run: Run, work: StageContext, label: str, scores: Scores) -> None:
    """Check that eval's score is the one made in training, to the last digit.

    Raises:
        Mismatch: it is not, although it was computed with the same settings.
    """
    trained = work.found[f"train of round {run.round}"]
    name = f"epoch-{trained.facts['best_epoch']}" if label == BEST else label
    record = dag.folder(run, "train") / f"{name}.json"
    before = files.read_json(record)["scores"] if record.is_file() else None
    if before is None or before == scores.as_json():
        return
    if trained.config["encoder"] == run.config.encoder.model_dump(mode="json"):
        raise Mismatch(
            f"{name}: the score of eval is not the one made in training; run it with as many "
            f"threads and processes (OMP_NUM_THREADS={trained.facts['threads']}, "
            f"{trained.facts['processes']} processes): {run.command('eval', '--adapter', label)}"
        )
    print(f"{name}: differs from the score made in training, on another device or token budget")


def _against(run: Run, known: Dataset, label: str, other: Run) -> str:
    """Compare with another run's best adapter, on the rows both were scored on."""
    other = other.at(run.round)
    folder = other.workspace.evaluation(run.round, BEST)
    now = dag.StageGraph().standing(other, "eval")
    if now.state != "done":
        why = f"a stale score ({now.why})" if now.why else "no score"
        raise StaleInput(f"{other.config.name} has {why}; run: {other.command('eval')}")
    if not (read(run, label) and read(other, BEST)):
        raise Contaminated(
            "one of the two was trained on rows it was scored on; that is not compared"
        )
    mine = rankings.read(run.workspace.evaluation(run.round, label) / "ranking.jsonl")
    theirs = rankings.read(folder / "ranking.jsonl")
    if set(mine.query_ids) != set(theirs.query_ids):
        raise Mismatch(
            f"{run.config.name} and {other.config.name} were scored on different rows "
            f"(splits {run.config.split.name} and {other.config.split.name}); give both one split"
        )
    k = min(evaluation.K, len(known.corpus))
    found = compare(mine, theirs, known.valid_qrels, known.split.unseen, run.config.scoring, k=k)
    judged = found.projection or found.all
    better = {"a is better": run, "b is better": other}.get(found.verdict)
    told = f"{better.config.name} is better" if better else found.verdict
    lines = [
        f"{run.config.name} against {other.config.name}: {told} "
        f"(difference {judged.value:+.4f}, 95 % {judged.low:+.4f} to {judged.high:+.4f})",
        *found.findings,
    ]
    return "\n".join(lines)
