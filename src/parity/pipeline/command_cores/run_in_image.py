"""`--where image`: run a stage inside the image that `invoke image` built."""

import importlib.metadata
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from parity.deploy.image import engines, image_lock
from parity.deploy.image.run_in_image import ContainerJob, Mount, entered, same
from parity.pipeline.command_cores.image import RECORD, sources
from parity.run import environment, files
from parity.run.errors import BadConfig, StaleInput
from parity.run.experiment import Run, open_run

STAGES = ("prepare", "mine", "train", "eval", "predict")
"""Stages that can run in the image as they are; a rehearsal runs the kernel there instead."""

_LENT = ("bm25s",)  # pure Python that scoring wants and neither the image nor the kernel has
_PACKAGES = Path("/opt/parity-packages")  # where the image sees what is lent
_PASSED = ("OMP_NUM_THREADS", "PARITY_DATA", "CUDA_VISIBLE_DEVICES")


def inside(run: Run, words: Sequence[str]) -> None:
    """Run a stage inside the image that was built, as the same words would run it here.

    The data folder is writable inside; run file, competition and base are not; there is no network.

    Args:
        run: the run that the words name.
        words: the command line, the stage first.

    Raises:
        BadConfig: the stage does not run inside, or the engine is gone.
        StaleInput: there is no image, or it was built from something else than what is here now.
        SystemExit: the stage failed; it has said why, and this is its exit code.
    """
    stage, *given = within(words)
    if stage not in STAGES:
        raise BadConfig(f"--where image: {stage} does not run inside; {', '.join(STAGES)} do")
    record = current(run)
    engine = engines.named(record["engine"])
    run.workspace.data.mkdir(parents=True, exist_ok=True)
    job = ContainerJob(
        command=["python", "-m", "parity", stage, *given],
        places=list(_places(run, stage, given)),
        cwd=Path.cwd(),
        env={name: os.environ[name] for name in _PASSED if name in os.environ} | _environment(run),
        gpu=bool(environment.gpu()),
    )
    print(f"inside {record['tag']} with {engine}", flush=True)
    with entered(engine, record["id"], job) as started:
        code = subprocess.call(started)  # as long as it takes: training takes hours
    if code:
        raise SystemExit(code)


def within(words: Sequence[str]) -> list[str]:
    """Return a command line as it is inside already.

    >>> within(["mine", "a.toml", "--where", "image", "--round=1", "--where=image"])
    ['mine', 'a.toml', '--round=1']
    """
    kept, words = [], list(words)
    for before, word in zip(["", *words], words, strict=False):
        if before != "--where" and word.partition("=")[0] != "--where":
            kept.append(word)
    return kept


def current(run: Run) -> dict[str, Any]:
    """Return the record of the image that was built: `engine`, `tag`, `id` and `layers`.

    Raises:
        StaleInput: there is none, or what it was built from is not what is here now.
    """
    path = run.workspace.data / RECORD
    if not path.is_file():
        raise StaleInput("no image has been built; run: invoke image")
    record: dict[str, Any] = files.read_json(path)
    before = record["layers"]
    mend = "invoke image" + f" --base {before['base']}" * image_lock.is_local(before["base"])
    now, _, _ = sources(run, before["base"])
    for layer, value in asdict(now).items():
        if before[layer] != value:
            raise StaleInput(f"the image was built from another {layer}; run: {mend}")
    return record


def _places(run: Run, stage: str, given: Sequence[str]) -> Iterator[Mount]:
    yield same(run.workspace.data, writable=True)
    other = _named(given, "--against")
    for one in (run, *([open_run(other)] if other else [])):
        yield same(one.file)
        yield same(Path(one.config.data.source))
    if imported := _named(given, "--import"):
        yield same(imported)
    if stage != "prepare":
        yield from _base(run)
        for package in _LENT:
            yield from _lent(package)


def _named(given: Sequence[str], flag: str) -> Path | None:
    """Return the file that a flag names, None where it was not given."""
    for word, following in zip(given, [*given[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == flag:
            return Path(value if equals else following)
    return None


def _base(run: Run) -> Iterator[Mount]:
    """Yield the places of the run's base, fetched and converted here where there is a network."""
    # Imported here: it loads torch, which `prepare` does not need.
    from parity.pipeline import encoder_loading  # noqa: PLC0415

    folder, name = encoder_loading.base(run).folder, run.config.encoder.base
    if name.startswith("pypi:"):  # what was converted lies in the data folder
        yield from _lent(name.removeprefix("pypi:"))
    elif Path(name).is_dir():
        yield same(folder)
    else:
        yield same(folder.parents[1])  # a snapshot of the hub's cache links to its files


def _lent(package: str) -> Iterator[Mount]:
    """Yield the parts of a package that is installed here, as the image is to see them."""
    found = importlib.metadata.distribution(package)
    tops = {
        file_path.parts[0]
        for file_path in found.files or ()
        if file_path.parts[0] not in ("..", "__pycache__")
    }
    for top in sorted(tops):
        yield Mount(Path(str(found.locate_file(top))).resolve(), _PACKAGES / top)


def _environment(run: Run) -> dict[str, str]:
    """Return what makes the image find what is lent, and the hub's cache without the hub."""
    found = {"PYTHONPATH": str(_PACKAGES), "HF_HUB_OFFLINE": "1"}
    name = run.config.encoder.base
    if not name.startswith("pypi:") and not Path(name).is_dir():
        from huggingface_hub import constants  # noqa: PLC0415 – a second, for the few that need it

        found["HF_HUB_CACHE"] = constants.HF_HUB_CACHE
    return found
