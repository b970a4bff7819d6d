"""4. Adapter → MAP@25 and Recall@25 of all, seen, unseen → evidence `cv`."""

import re
from pathlib import Path

from parity.competition import ranking as rankings
from parity.competition.lineage import Groups, Lineage, Status, groups, guard
from parity.competition.metrics import Scores
from parity.competition.significance import compare
from parity.reconcile.tables import scores_table
from parity.retrieval.workers import launched
from parity.run import files, ledger
from parity.run.errors import BadConfig, Mismatch, StaleInput
from parity.run.ledger import Evidence
from parity.stages import evidence, graph, load, nouns, scoring
from parity.stages.nouns import Nouns
from parity.stages.run import Run, open_run
from parity.stages.work import Work, working

BASE = "base"
BEST = "best"


def evaluate(
    run: Run, label: str = BEST, *, against: Path | None = None, accept_polluted: bool = False
) -> None:
    """Score one adapter on the split's valid rows, beside the lexical baselines.

    Args:
        run: the run at its round.
        label: `best`, `base` or `epoch-N`.
        against: another run file, whose best adapter is compared with this one.
        accept_polluted: score rows that the adapter was trained on; kept out of every table.

    Raises:
        Polluted: the adapter was trained on rows it is to be scored on.
        BadConfig: the split holds nothing out, or there is no such adapter.
    """
    workers = launched()
    place = run.workspace.evaluation(run.round, label)
    with working(run, "eval", folder=place, main=workers.main) as work:
        known = nouns.load(run)
        scoring.need_valid(known)
        adapter = _adapter(run, label)
        lineage = lineage_of(adapter)
        status = guard(
            lineage, known.split.valid, groups=_groups(known), accept_polluted=accept_polluted
        )
        encoder = load.encoder(run, adapter, workers)
        scored = scoring.score(encoder, run.config, known)
        if not workers.main or scored.scores is None or scored.ranking is None:
            return
        rankings.write(work.out("ranking.jsonl"), scored.ranking)
        rankings.write(work.out("probe_ranking.jsonl"), scored.probed.found.ranking)
        files.write_array(work.out("probe.npy"), scored.probed.found.vectors)
        evidence.keep_texts(run, scored.probed, label)
        rows = {**scoring.lexical(run.config, known), label: scored.scores}
        record = {name: scores.as_json() for name, scores in rows.items()}
        files.write_json(work.out("scores.json"), {"status": status, "scores": record})
        work.facts = {"status": status, "adapter": encoder.adapter}
        ledger.append(
            run.workspace.ledger,
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
                made=evidence.now(),
            ),
        )
        _tell(run, work, status, label, rows)
    if against is not None and workers.main:
        print(_against(run, known, label, open_run(against)))


def read(run: Run, label: str) -> dict[str, Scores]:
    """Return the scores an evaluation wrote, by method; empty where it is missing or polluted."""
    path = run.workspace.evaluation(run.round, label) / "scores.json"
    if not path.is_file():
        return {}
    record = files.read_json(path)
    if record["status"] != "clean":
        return {}
    return {name: Scores.from_json(scores) for name, scores in record["scores"].items()}


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
    if re.fullmatch(r"epoch-[1-9][0-9]*", label) is None or not folder.is_dir():
        there = sorted(path.name for path in folder.parent.glob("epoch-*") if path.is_dir())
        raise BadConfig(f"--adapter {label}: want {BEST}, {BASE} or one of {', '.join(there)}")
    return folder


def _groups(known: Nouns) -> Groups:
    return groups(known.queries)


def _tell(run: Run, work: Work, status: Status, label: str, rows: dict[str, Scores]) -> None:
    print(scores_table(list(rows.items()), style="text"))
    if status == "polluted":
        print("POLLUTED: trained on rows it was scored on; kept out of every table and chart")
    trained = graph.folder(run, "train") / f"{label}.json"
    if label.startswith("epoch-") and trained.is_file():
        before = files.read_json(trained)["scores"]
        if before is not None and before != rows[label].as_json():
            raise Mismatch(
                f"{label}: the score of eval is not the one made in training; something between "
                f"them differs (manifests: {trained.parent.name}, {work.folder.name})"
            )


def _against(run: Run, known: Nouns, label: str, other: Run) -> str:
    """Compare with another run's best adapter, on the rows both were scored on."""
    folder = other.workspace.evaluation(run.round, BEST)
    if not (folder / "ranking.jsonl").is_file():
        raise StaleInput(f"{other.config.name} has no score; run: {other.command('eval')}")
    mine = rankings.read(run.workspace.evaluation(run.round, label) / "ranking.jsonl")
    theirs = rankings.read(folder / "ranking.jsonl")
    if set(mine.query_ids) != set(theirs.query_ids):
        raise Mismatch(
            f"{run.config.name} and {other.config.name} were scored on different rows "
            f"(splits {run.config.split.name} and {other.config.split.name}); give both one split"
        )
    found = compare(
        mine, theirs, known.valid_qrels, known.split.unseen, run.config.scoring, k=scoring.K
    )
    judged = found.projection or found.all
    told = found.verdict.replace("a is", f"{run.config.name} is")
    told = told.replace("b is", f"{other.config.name} is")
    lines = [
        f"{run.config.name} against {other.config.name}: {told} "
        f"(difference {judged.value:+.4f}, 95 % {judged.low:+.4f} to {judged.high:+.4f})",
        *found.findings,
    ]
    return "\n".join(lines)
