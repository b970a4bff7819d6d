"""References to models, in one syntax for every command: `--model REFERENCE`.

base                      the run's base model, without an adapter
best, last, epoch-N       an adapter of this run and round
round-R/best              an adapter of this run's round R
RUN/round-R/epoch-N       an adapter of another run
FOLDER                    a folder with an adapter and its adapter.json
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parity.run import digest, files
from parity.run import manifest as manifests
from parity.run.errors import BadConfig, ParityError, StaleInput
from parity.run.experiment import Run
from parity.run.file_digests import FileDigests
from parity.run.paths import RunPaths

BASE, BEST, LAST = "base", "best", "last"
RECORD = "adapter.json"
"""File that makes a folder an adapter; written by `retrieval/models/adapter.py`."""
LINEAGE = "lineage.json"
FILES = (
    RECORD,
    "adapter_config.json",
    "adapter_model.safetensors",
    "weights.safetensors",
    LINEAGE,
)
"""Files that make an adapter what it is; a folder may hold others."""
_SYNTAX = re.compile(
    r"(?:(?:(?P<run>[^/]+)/)?round-(?P<round>\d+)/)?(?P<name>best|last|epoch-[1-9]\d*)"
)
_DIGITS = 8  # of the digest in the label of a folder


@dataclass(frozen=True, slots=True)
class Model:
    """A base model or a finished adapter on this machine.

    Attributes:
        reference: reference that finds it from the run, with the round.
        label: name of its evaluations, without the round for adapters of the run.
        round: round that its evaluations belong to.
        folder: folder of the adapter; None for the base model.
        digest: digest of weights, settings and lineage; empty for the base model.
        trained: label of the training in the graph, such as `train of round 0`; empty for a base
            model or an adapter of another run.
    """

    reference: str
    label: str
    round: int
    folder: Path | None = None
    digest: str = ""
    trained: str = ""


def resolve(text: str, run: Run) -> Model:
    """Return the model that a reference names.

    Args:
        text: reference; see the module.
        run: run at its round, which a reference without a round means.

    Raises:
        BadConfig: there is no such model; the message lists those of the run.
        StaleInput: its training has not finished, or a file of the adapter has changed since.
    """
    if text == BASE:
        return Model(BASE, BASE, 0)
    match = _SYNTAX.fullmatch(text)
    if match is None:
        return _from_folder(text, run)
    round_ = run.round if match["round"] is None else int(match["round"])
    if match["run"] in (None, run.config.name):
        return _of_run(match["name"], run.at(round_))
    return _of_other_run(match["run"], round_, match["name"], run)


def is_reference(text: str) -> bool:
    """Return whether a text names a model other than by its folder."""
    return text == BASE or _SYNTAX.fullmatch(text) is not None


def find(text: str, run: Run) -> Model | None:
    """Return the model that a reference names; None if it is not there any more."""
    try:
        return resolve(text, run)
    except ParityError:
        return None


def own_round(text: str, run: Run) -> int | None:
    """Return the round of a reference to an adapter of the run itself; None for other models."""
    match = _SYNTAX.fullmatch(text)
    if match is None or match["run"] not in (None, run.config.name):
        return None
    return run.round if match["round"] is None else int(match["round"])


def is_trained_later(text: str, run: Run) -> bool:
    """Return whether a reference with a round names an adapter of this round or a later one."""
    trained = own_round(text, run)
    return "round-" in text and trained is not None and trained >= run.round


def need_earlier(text: str, run: Run) -> None:
    """Check that a reference names no adapter that this round or a later one trains.

    Raises:
        BadConfig: it does, so the adapter would depend on itself.
    """
    trained = own_round(text, run)
    if trained is not None and trained >= run.round:
        raise BadConfig(
            f"round {run.round} can't use {text}, which round {trained} trains. Use "
            f"--round {trained + 1}, or a model of an earlier round or another run"
        )


def models_of(run: Run) -> Iterator[Model]:
    """Yield the base model and every finished adapter of a run, the best one of a round last."""
    yield Model(BASE, BASE, 0)
    round_ = 0
    while run.workspace.stage("train", round_).is_dir():
        if manifests.read(run.workspace.stage("train", round_)) is not None:
            names = [f"epoch-{number}" for number in epochs_of(run.workspace, round_)]
            found = (find(f"round-{round_}/{name}", run) for name in (*names, BEST))
            yield from filter(None, found)  # one whose files were changed since is left out
        round_ += 1


def epochs_of(paths: RunPaths, round_: int) -> list[int]:
    """Return the numbers of a round's saved epochs, in order."""
    folders = paths.stage("train", round_).glob("epoch-*/" + RECORD)
    return sorted(int(path.parent.name.rpartition("-")[2]) for path in folders)


def describe_available(run: Run) -> str:
    """Return the models of a run in a few words, for an error."""
    names = [BASE]
    for path in sorted(run.workspace.root.glob("round-*/train/manifest.json")):
        round_ = int(path.parent.parent.name.removeprefix("round-"))
        prefix = "" if round_ == run.round else f"round-{round_}/"
        numbers = epochs_of(run.workspace, round_)
        names += [f"{prefix}{name}" for name in (BEST, *(f"epoch-{n}" for n in numbers))]
    return ", ".join(names)


def adapter_digest(folder: Path, digests: FileDigests) -> str:
    """Return the digest of an adapter's weights, settings and lineage.

    Args:
        folder: folder of the adapter.
        digests: memory of digests.
    """
    present = [name for name in FILES if (folder / name).is_file()]
    return digest.of_value({name: digests.of_file(folder / name) for name in sorted(present)})


def _of_run(name: str, run: Run) -> Model:
    """Return an adapter of the run at its round."""
    folder, number = _finished(name, run, run)
    if name == LAST:
        name = f"epoch-{number}"
    reference = f"round-{run.round}/{name}"
    trained = f"train of round {run.round}"
    return Model(reference, name, run.round, folder, _digest(folder, run), trained)


def _of_other_run(name: str, round_: int, label: str, run: Run) -> Model:
    """Return an adapter of another run in the same data folder."""
    paths = RunPaths(run.workspace.data, name)
    if not paths.root.is_dir():
        names = sorted(path.name for path in paths.root.parent.glob("*") if path.is_dir())
        raise BadConfig(f"no run {name!r} in {paths.root.parent} (it has: {', '.join(names)})")
    config = run.config.model_copy(update={"name": name, "overrides": ()})
    other = Run(run.file.with_name(f"{name}.toml"), config, paths, round_)
    folder, number = _finished(label, other, run)
    label = f"epoch-{number}" if label == LAST else label
    reference = f"{name}/round-{round_}/{label}"
    return Model(reference, reference, 0, folder, _digest(folder, run))


def _finished(name: str, run: Run, asking: Run) -> tuple[Path, int]:
    """Return the folder of a finished round's adapter and the number of its last epoch."""
    paths, folder = run.workspace, run.workspace.stage("train", run.round)
    manifest = manifests.read(folder)
    if manifest is None:
        raise StaleInput(
            f"train of round {run.round} is missing, so {run.config.name} has no {name} there "
            f"(models: {describe_available(asking)})",
            fix=run.command_words("train"),
        )
    last = max(epochs_of(paths, run.round), default=0)
    if name == BEST:
        target = paths.adapter(run.round)
    else:
        target = paths.epoch(run.round, last) if name == LAST else folder / name
    if not target.is_dir():
        raise BadConfig(
            f"{run.config.name} has no {name} of round {run.round} "
            f"(models: {describe_available(asking)})"
        )
    prefix, digests = f"{target.name}/", FileDigests(paths.digests)
    for output, expected in manifest.outputs.items():
        is_own = output.startswith(prefix)
        path = folder / output
        if is_own and (not path.is_file() or digests.of_file(path) != expected):
            raise StaleInput(
                f"train of round {run.round} is stale ({output} is missing or was changed)",
                fix=run.command_words("train"),
            )
    return target, last


def _digest(folder: Path, run: Run) -> str:
    return adapter_digest(folder, FileDigests(run.workspace.digests))


def _from_folder(text: str, run: Run) -> Model:
    """Return the adapter in a folder."""
    folder = Path(text)
    if not (folder / RECORD).is_file():
        problem = f"has no {RECORD}" if folder.is_dir() else "is not a model or a folder"
        raise BadConfig(
            f"{text} {problem}. Use base, best, last, epoch-N, round-R/epoch-N, "
            f"RUN/round-R/epoch-N or a folder with an adapter (models: {describe_available(run)})"
        )
    files.read_json(folder / RECORD)  # refuses a file that is not JSON
    identity = _digest(folder, run)
    label = f"{folder.resolve().name}-{identity[:_DIGITS]}"
    return Model(folder.as_posix(), label, 0, folder, identity)
