"""A CV that can be scored again, with layers swapped for those of another CV."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from parity.analysis.compare import layer_values
from parity.analysis.compare.attribution import Values
from parity.analysis.compare.evidence_record import EvidenceRecord
from parity.competition.lineage import Lineage
from parity.competition.query import UnitId, unit_of
from parity.competition.scoring import metrics
from parity.competition.scoring.row_metrics import Metric
from parity.pipeline import dataset, encoder_loading, evaluation, model_reference
from parity.pipeline.dataset import Dataset
from parity.pipeline.evidence import SETTINGS
from parity.retrieval.models import adapter as adapters
from parity.run import files, layers
from parity.run import manifest as manifests
from parity.run.command_line import command_words
from parity.run.config import run_file as configs
from parity.run.config.run_file import Config
from parity.run.digest import of_value
from parity.run.errors import StaleInput
from parity.run.experiment import Run, run_file_of
from parity.run.ledger import Evidence
from parity.run.paths import RunPaths

_MAX_SETTING = 24  # characters of a setting that a line shows


@dataclass(frozen=True, slots=True)
class Replay:
    """A CV that can be scored again.

    Attributes:
        config: settings of the CV.
        paths: folders of its run.
        adapter: folder of the adapter; None for the base model.
        weights: digest of the adapter's weights and settings; empty for the base model.
        data: competition with its split; the validation set holds the rows to score.
    """

    config: Config
    paths: RunPaths
    adapter: Path | None
    weights: str
    data: Dataset


def evaluation_words(evidence: Evidence) -> tuple[str, ...]:
    """Return the command that evaluates the run of a record again, as an error's `fix`."""
    return command_words("eval", run_file=_run_file(evidence), round_=evidence.round)


def load_replay(record: EvidenceRecord, data: Path, units: Collection[UnitId]) -> Replay:
    """Return a CV, ready to be scored again on some units.

    Raises:
        StaleInput: its settings, adapter, split or data are missing or have changed.
    """
    evidence = record.evidence
    workspace = RunPaths(data, evidence.run)
    path = workspace.evidence(record.id) / SETTINGS
    if not path.is_file():
        raise StaleInput(
            f"no settings are stored with the record {record.name}",
            fix=evaluation_words(evidence),
        )
    config = configs.build(files.read_json(path), str(path))
    run = Run(_run_file(evidence), config, workspace, evidence.round)
    weights = evidence.layers.get("adapter", "")
    adapter = _find_adapter(workspace, evidence, weights) if weights else None
    if weights and adapter is None:
        raise StaleInput(
            f"adapter {weights[:12]} of {config.name} is missing in "
            f"{workspace.stage('train', evidence.round)}",
            fix=run.command_words("train"),
        )
    competition = _load_scored(config, workspace, adapter, evidence)
    if competition is None:
        raise StaleInput(
            f"the data or the split of {record.name} has changed since",
            fix=run.at(0).command_words("prepare"),
        )
    split = competition.split
    common = replace(
        split,
        valid=tuple(unit for unit in split.valid if unit in units),
        unseen=frozenset(row for row in split.unseen if unit_of(row) in units),
    )
    return Replay(config, workspace, adapter, weights, replace(competition, split=common))


def _load_scored(
    config: Config, paths: RunPaths, adapter: Path | None, evidence: Evidence
) -> Dataset | None:
    """Return the dataset with the rows of a record; None if data or split have changed since."""
    prepared = manifests.read(paths.prepare)
    expected = {name: evidence.layers.get(name, "") for name in ("data", "split")}
    if prepared is None or of_value(prepared.inputs) != expected["data"]:
        return None
    data = dataset.load(config, paths)
    if data.split.digest() == expected["split"]:
        return data
    rows = evaluation.clean_rows(data, Lineage.of_adapter(adapter), accept_contaminated=False)
    return rows.data if rows.data.split.digest() == expected["split"] else None


def _find_adapter(paths: RunPaths, evidence: Evidence, weights: str) -> Path | None:
    """Return the folder of the adapter with this digest that was scored; None if there is none."""
    folder = paths.stage("train", evidence.round)
    other = evidence.label.partition("@")[0].split("/")  # RUN/round-N/NAME of another run's
    if len(other) > 1:
        folder = paths.root.with_name(other[0]) / other[1] / "train"
    folders = [folder / "adapter", *sorted(folder.glob("epoch-*"))]
    scored = manifests.read(paths.evaluation(evidence.round, evidence.label))
    if scored is not None and not model_reference.is_reference(scored.facts["model"]):
        folders.append(Path(scored.facts["model"]))  # `eval --model FOLDER`
    for path in folders:
        if path.is_dir() and adapters.read_record(path).digest() == weights:
            return path
    return None


def differs(layer: str, a: Replay, b: Replay) -> bool:
    """Return whether a swap of this layer would change anything."""
    if layer == "adapter":
        return a.weights != b.weights
    uses_pool = layer == "examples" and a.config.prompt.examples != "none"
    return _changed_settings(layer, a, b) != [] or (uses_pool and a.data.pool != b.data.pool)


def _changed_settings(layer: str, a: Replay, b: Replay) -> list[tuple[str, str, str]]:
    """Return key, A's value and B's value of a layer's settings that differ."""
    settings = layers.BY_NAME[layer]
    x, y = (getattr(replay.config, settings.section) for replay in (a, b))
    rows = ((key, str(getattr(x, key)), str(getattr(y, key))) for key in settings.keys)
    return [row for row in rows if row[1] != row[2]]


def swap(layer: str, state: Replay, b: Replay) -> Replay:
    """Return `state` with one layer of B; an adapter fits only its own base."""
    if layer in ("base", "adapter"):
        state = replace(state, adapter=b.adapter, weights=b.weights)
    if layer == "adapter":
        return state
    if layer == "examples":
        state = replace(state, data=b.data)
    settings = layers.BY_NAME[layer]
    target = getattr(b.config, settings.section)
    section = getattr(state.config, settings.section).model_copy(
        update={key: getattr(target, key) for key in settings.keys}
    )
    config: Config = state.config.model_copy(update={settings.section: section})
    return replace(state, config=config)


def describe(layer: str, state: Replay, b: Replay) -> str:
    """Return in a few words what a swap changes."""
    if layer == "adapter":
        names = [replay.weights[:12] or layer_values.NO_ADAPTER for replay in (state, b)]
        return " to ".join(names)
    changed = _changed_settings(layer, state, b)
    long = [key for key, x, y in changed if max(len(x), len(y)) > _MAX_SETTING or not x]
    short = [f"{key} {x} to {y}" for key, x, y in changed if key not in long]
    pool = ["the pool of examples"] if layer == "examples" and not changed else []
    adapter = ["with its adapter"] if layer == "base" and state.weights != b.weights else []
    return ", ".join([*long, *short, *pool, *adapter])


def score(replay: Replay, metric: Metric) -> Values:
    """Score the common rows, as `eval` does."""
    encoder = encoder_loading.load_caching_encoder(
        replay.config.encoder, replay.paths, replay.adapter
    )
    result = evaluation.score(encoder, replay.config, replay.data)
    assert result.ranking is not None  # there are common rows
    return metrics.row_scores(result.ranking, replay.data.valid_qrels, metric)


def _run_file(evidence: Evidence) -> Path:
    return run_file_of(evidence.run)
