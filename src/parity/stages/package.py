"""6. Adapter → bundle, the flat folder that goes to Kaggle."""

import shutil

from parity.competition.lineage import Lineage
from parity.reconcile.tables import scores_table
from parity.retrieval import adapter as adapters
from parity.retrieval import bases
from parity.retrieval.bases import Base
from parity.run import config as configs
from parity.run import files
from parity.shipping import bundle, card, report
from parity.stages import epochs, evaluate, evidence, load, nouns
from parity.stages.run import Run
from parity.stages.work import Work, working


def package(run: Run) -> None:
    """Gather adapter, frozen config, ids and digests into one folder, and seal it."""
    with working(run, "package") as work:
        target = work.folder / "bundle"
        with files.replacing(target) as temporary:
            shutil.copytree(run.workspace.adapter(run.round), temporary)
            for name in ("exemplars.jsonl", "probe.jsonl"):
                shutil.copy2(run.workspace.prepare / name, temporary / name)
            base = load.base(run)
            bases.write_record(base, temporary)
            files.write_text(temporary / "README.md", _card(run, base))
            sealed = bundle.seal(
                temporary, run=run.config.name, round_=run.round, layers=_layers(run, work)
            )
        work.outputs = [f"bundle/{path.name}" for path in sorted(target.iterdir())]
        work.facts = {"digest": sealed}
        size = sum(path.stat().st_size for path in target.iterdir())
        print(f"bundle {sealed[:12]}, {len(work.outputs)} files, {size / 1e6:.1f} MB: {target}")


def _layers(run: Run, work: Work) -> dict[str, str]:
    """Return what the chosen epoch showed on the probe when it was saved, and its data layers."""
    number = work.found[f"train of round {run.round}"].facts["best_epoch"]
    record = files.read_json(run.workspace.stage("train", run.round) / f"epoch-{number}.json")
    lineage = Lineage.read(run.workspace.adapter(run.round) / "lineage.json")
    known = nouns.load(run)
    data = evidence.data_layers(run, known, lineage)
    return {**data, **report.mounted(known.corpus, known.pool), **record["layers"]}


def _card(run: Run, base: Base) -> str:
    folder = run.workspace.adapter(run.round)
    rows = evaluate.read(run, evaluate.BEST)
    table = (
        scores_table(list(rows.items()), style="markdown")
        if rows
        else "None: the split holds nothing out, or what was scored had been trained on."
    )
    return card.write(
        configs.build(epochs.frozen(run.config), str(run.file)),
        Lineage.read(folder / "lineage.json"),
        round_=run.round,
        weights=adapters.read_record(folder).weights,
        base_licence=base.licence,
        table=table,
    )
