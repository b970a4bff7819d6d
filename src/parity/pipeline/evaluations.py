"""Evaluations of a run: which models were scored, and under which settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parity.competition.query import QueryId
from parity.competition.scoring.metrics import Scores
from parity.pipeline import changes, dag, model_reference
from parity.pipeline.dag import StageGraph
from parity.pipeline.model_reference import Model
from parity.run import files, ledger
from parity.run import manifest as manifests
from parity.run.errors import BadConfig, Contaminated, ParityError, StaleInput
from parity.run.experiment import Run, open_run
from parity.run.ledger import Evidence
from parity.run.manifest import Manifest

SCORES = "scores.json"


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """A model's clean and current evaluation.

    Attributes:
        run: run at the model's round, with the settings of the evaluation.
        label: model and evaluation, such as `epoch-4@bnb4`.
        name: label with the round, where the run has several.
        folder: folder of its files.
        scores: scores of the model.
        lexical: method → scores of the lexical baselines on the same rows.
        unseen: scored rows with an unseen label.
    """

    run: Run
    label: str
    name: str
    folder: Path
    scores: Scores
    lexical: dict[str, Scores]
    unseen: frozenset[QueryId]

    @property
    def value(self) -> float:
        """Score to choose by: the projection, else the score of all rows."""
        estimate = self.scores.projection or self.scores.all.score
        return estimate.value if estimate else 0.0


def read(folder: Path) -> dict[str, Scores]:
    """Return the scores in an evaluation's folder by method; empty if missing or contaminated.

    The model's own scores come last, under the evaluation's label.
    """
    if manifests.read(folder) is None:
        return {}  # not finished: its files are from an earlier evaluation
    record = files.read_json(folder / SCORES)
    if record["status"] != "clean":
        return {}
    own = record["label"]
    order = [*sorted(set(record["scores"]) - {own}), own]
    return {name: Scores.from_json(record["scores"][name]) for name in order}


def find_cv(run: Run, model: Model) -> Evidence:
    """Return the record of a CV that is neither stale nor contaminated.

    Raises:
        StaleInput: the CV is missing or stale.
        Contaminated: the CV is on rows that the adapter was trained on.
    """
    folder, label = dag.evaluation_folder(run, model), dag.evaluation_label(model, run)
    fix = dag.evaluation_words(run, model)
    standing = StageGraph().evaluation(run, model)
    if standing.manifest is None:
        raise StaleInput(f"the CV of {label} of round {run.round} is missing", fix=fix)
    if standing.state != "done":
        raise StaleInput(f"the CV of {label} is stale ({standing.reason})", fix=fix)
    if files.read_json(folder / SCORES)["status"] != "clean":
        raise Contaminated(
            f"the CV of {label} is contaminated: it was scored on rows that the adapter was "
            "trained on. Train it on this split",
            fix=run.command_words("train"),
        )
    cvs = [
        record
        for record in ledger.read(run.workspace.ledger)
        if (record.run, record.round, record.label) == (run.config.name, run.round, label)
        and (record.kind, record.status) == ("cv", "clean")
    ]
    if not cvs:
        raise StaleInput(f"no CV of {label} in {run.workspace.ledger}", fix=fix)
    return cvs[-1]


def changed_bundle_sources(graph: StageGraph, run: Run, manifest: Manifest) -> str:
    """Return which lock, or which evaluation of the packaged model, has changed since."""
    if reason := changes.changed_locks(graph, run, manifest):
        return reason
    if "evaluation" not in manifest.inputs:
        return ""
    try:
        model = model_reference.resolve(manifest.facts["model"], run)
    except ParityError as error:
        return str(error)
    status = graph.evaluation(run, model)
    if status.manifest is None or status.state != "done":
        return f"the evaluation of {dag.evaluation_label(model, run)} is {status.state}"
    if status.manifest.digest() != manifest.inputs["evaluation"]:
        return f"the evaluation of {dag.evaluation_label(model, run)} has changed since"
    return ""


def settings_of(run: Run) -> list[Run]:
    """Return the run under its own settings, then under each named evaluation of its run file."""
    own = run.with_own_settings()
    return [own, *(own.evaluated_as(name) for name in sorted(own.config.evaluations))]


def missing(run: Run, graph: StageGraph) -> list[tuple[Run, Model]]:
    """Return the models without a current score, with the run at their round, by settings.

    A run with settings of `--as` or `--set` has these alone. The best adapter of a round stands for
    its epoch, which has the same weights.
    """
    models = list(model_reference.models_of(run))
    best = {model.digest for model in models if model.label == model_reference.BEST}
    distinct = [m for m in models if m.label == model_reference.BEST or m.digest not in best]
    return [
        (settings.at(model.round), model)
        for settings in ([run] if run.evaluation else settings_of(run))
        for model in distinct
        if graph.evaluation(settings.at(model.round), model).state != "done"
    ]


def quick_looks(run: Run) -> Iterator[Run]:
    """Yield the run under each settings of `--set` that a model was scored under."""
    named = {settings.evaluation for settings in settings_of(run)}
    for path in sorted(run.workspace.root.glob("round-*/eval/**/manifest.json")):
        manifest = manifests.read(path.parent)
        name = manifest.facts.get("evaluation", "") if manifest else ""
        if manifest is not None and name not in named:
            named.add(name)
            try:
                looked = open_run(run.file, tuple(manifest.config["overrides"]), run.round)
            except BadConfig:  # a key that the run file's sections do not have any more
                continue
            if looked.evaluation == name:
                yield looked


def scored_models(run: Run, graph: StageGraph) -> Iterator[ScoredModel]:
    """Yield the clean and current evaluations of a run, by settings and then by model."""
    has_rounds, models = dag.rounds(run) > 1, list(_models(run))
    for settings in (*settings_of(run), *quick_looks(run)):
        for model in models:
            at_round = settings.at(model.round)
            if graph.evaluation(at_round, model).state != "done":
                continue
            folder = dag.evaluation_folder(at_round, model)
            scores = read(folder)
            if not scores:
                continue
            label = dag.evaluation_label(model, at_round)
            own = model.trained and has_rounds
            yield ScoredModel(
                run=at_round,
                label=label,
                name=f"round-{model.round}/{label}" if own else label,
                folder=folder,
                scores=scores.pop(label),
                lexical=scores,
                unseen=frozenset(files.read_json(folder / SCORES)["unseen"]),
            )


def _models(run: Run) -> Iterator[Model]:
    """Yield the models of a run, then those of other runs and folders that it has scored."""
    known = {}
    for model in model_reference.models_of(run):
        known[model.label, model.round] = model
        yield model
    for path in sorted((run.workspace.root / "round-0" / "eval").rglob("manifest.json")):
        manifest = manifests.read(path.parent)
        reference = manifest.facts.get("model", "") if manifest else ""
        if reference and model_reference.own_round(reference, run) is None:
            other = model_reference.find(reference, run)
            if other is not None and (other.label, other.round) not in known:
                known[other.label, other.round] = other
                yield other
