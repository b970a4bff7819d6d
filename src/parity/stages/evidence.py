"""Evidence of this run: the layers that come before the model, and the texts kept beside it."""

from typing import Any

from parity.competition.lineage import Lineage
from parity.retrieval.probing import Probed
from parity.run import digest, files, ledger
from parity.run.ledger import Evidence, Step, StepName
from parity.run.manifest import read as read_manifest
from parity.stages.nouns import Nouns
from parity.stages.run import Run


def data_layers(run: Run, known: Nouns, lineage: Lineage) -> dict[str, str]:
    """Return the layers from raw data to lineage."""
    prepared = read_manifest(run.workspace.prepare)
    return {
        "data": digest.of_value(prepared.inputs) if prepared else "",
        "split": known.split.digest(),
        "lineage": lineage.digest(),
    }


def note(run: Run, step: StepName, key: str, refs: dict[str, Any]) -> None:
    """Write a step on Kaggle into the ledger, unless it stands there already."""
    made = Step(run.config.name, run.round, step, key, refs, ledger.now())
    ledger.append_step(run.workspace.ledger, made)


def steps(run: Run) -> list[Step]:
    """Return the steps that this run took on Kaggle at its round, oldest first."""
    known = ledger.steps(run.workspace.ledger)
    return [one for one in known if (one.run, one.round) == (run.config.name, run.round)]


def kernels(run: Run) -> list[Evidence]:
    """Return what Kaggle's kernel showed for this run at its round, oldest first."""
    return [
        one
        for one in ledger.read(run.workspace.ledger)
        if one.kind == "kernel" and (one.run, one.round) == (run.config.name, run.round)
    ]


def keep_texts(run: Run, probed: Probed, label: str) -> None:
    """Write the probe's texts and token ids, to show a difference later; they never leave data/."""
    asked = probed.found.asked
    rows = zip(probed.found.ranking.query_ids, asked.texts, asked.tokens, strict=True)
    files.write_jsonl(
        run.workspace.texts(run.round, label),
        ({"query_id": one, "text": text, "tokens": ids} for one, text, ids in rows),
    )
