"""`--where image`: run a stage inside the image that `image` built."""

import importlib.metadata
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from parity.deploy.image import engines, image_lock
from parity.deploy.image.run_in_image import (
    ContainerJob,
    Mount,
    mount_at_same_path,
    open_container,
)
from parity.pipeline.command_cores.image import RECORD, read_image_inputs
from parity.pipeline.model_reference import is_reference
from parity.pipeline.registry import stage_names
from parity.run import environment, files
from parity.run.command_line import PROGRAM
from parity.run.config.encoder import EncoderConfig
from parity.run.config.run_file import Config
from parity.run.errors import BadConfig, StaleInput
from parity.run.experiment import Run, open_run
from parity.run.paths import RunPaths

_SHARED = ("bm25s",)  # pure Python that scoring needs and neither the image nor the kernel has
_PACKAGES = Path("/opt/parity-packages")  # where the image finds the shared packages
_PASSED = ("OMP_NUM_THREADS", "PARITY_DATA", "CUDA_VISIBLE_DEVICES", PROGRAM)


def run_stage_in_image(run: Run, words: Sequence[str]) -> None:
    """Run a stage inside the built image, with the same command line as on this machine.

    The data folder is writable; run file, competition and base model are read-only. There is no
    network.

    Args:
        run: the run that the command line names.
        words: the command line, the stage first.

    Raises:
        BadConfig: the stage does not run in the image, or the engine does not respond.
        StaleInput: there is no image, or its inputs changed since it was built.
        SystemExit: the stage failed and printed why; holds its exit code.
    """
    stage, *arguments = without_where(words)
    # A rehearsal runs the kernel script in the image instead.
    possible = stage_names(runs_in_image=True)
    if stage not in possible:
        raise BadConfig(
            f"--where image: {stage} does not run inside. Use it with {', '.join(possible)}"
        )
    record = read_current_image(run.workspace)
    engine = engines.by_name(record["engine"])
    run.workspace.data.mkdir(parents=True, exist_ok=True)
    job = ContainerJob(
        command=["python", "-m", "parity", stage, *arguments],
        mounts=list(_mounts(run.file, run.config, run.workspace, [stage, *arguments])),
        cwd=Path.cwd(),
        env={name: os.environ[name] for name in _PASSED if name in os.environ}
        | _environment(run.config.encoder.base),
        gpu=bool(environment.gpu()),
    )
    print(f"inside {record['tag']} with {engine}", flush=True)
    with open_container(engine, record["id"], job) as command:
        code = subprocess.call(command)  # without a timeout: training takes hours
    if code:
        raise SystemExit(code)


def without_where(words: Sequence[str]) -> list[str]:
    """Return a command line without the flag `--where`.

    >>> without_where(["mine", "a.toml", "--where", "image", "--round=1", "--where=image"])
    ['mine', 'a.toml', '--round=1']
    """
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before != "--where" and word.partition("=")[0] != "--where"
    ]


def read_current_image(paths: RunPaths) -> dict[str, Any]:
    """Return the record of the built image: `engine`, `tag`, `id` and `layers`.

    Raises:
        StaleInput: there is no image, or its inputs changed since it was built.
    """
    path = paths.data / RECORD
    if not path.is_file():
        raise StaleInput("no image has been built", fix=("image",))
    record: dict[str, Any] = files.read_json(path)
    built = record["layers"]
    current, _, _ = read_image_inputs(paths, built["base"])
    for layer, value in asdict(current).items():
        if built[layer] != value:
            base = (f"--base={built['base']}",) * image_lock.is_local(built["base"])
            raise StaleInput(f"the image was built from another {layer}", fix=("image", *base))
    return record


def _mounts(file: Path, config: Config, paths: RunPaths, words: Sequence[str]) -> Iterator[Mount]:
    yield mount_at_same_path(paths.data, writable=True)
    against = _flag_path(words, "--against")
    sources = [(file, config.data.source)]
    if against:
        sources.append((against, open_run(against).config.data.source))
    for run_file, source in sources:
        yield mount_at_same_path(run_file)
        yield mount_at_same_path(Path(source))
    if imported := _flag_path(words, "--import"):
        yield mount_at_same_path(imported)
    for model in (_flag_path(words, "--model"), Path(config.training.init_from)):
        if model is not None and not is_reference(model.as_posix()) and model.is_dir():
            yield mount_at_same_path(model)
    if words[0] != "prepare":
        yield from _base_mounts(config.encoder, paths)
        for package in _SHARED:
            yield from _package_mounts(package)


def _flag_path(arguments: Sequence[str], flag: str) -> Path | None:
    """Return the path that a flag is set to, or None without the flag."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == flag:
            return Path(value if equals else following)
    return None


def _base_mounts(config: EncoderConfig, paths: RunPaths) -> Iterator[Mount]:
    """Yield the mounts of the base model, which is downloaded and converted on this machine."""
    # Imported late, because it loads torch, which `prepare` does not need.
    from parity.pipeline import encoder_loading  # noqa: PLC0415

    folder, name = encoder_loading.load_base(config, paths).folder, config.base
    if name.startswith("pypi:"):  # the converted model is in the data folder
        yield from _package_mounts(name.removeprefix("pypi:"))
    elif Path(name).is_dir():
        yield mount_at_same_path(folder)
    else:
        yield mount_at_same_path(folder.parents[1])  # a snapshot in the hub's cache holds links


def _package_mounts(package: str) -> Iterator[Mount]:
    """Yield mounts of the files of a package that is installed on this machine."""
    distribution = importlib.metadata.distribution(package)
    tops = {
        path.parts[0]
        for path in distribution.files or ()
        if path.parts[0] not in ("..", "__pycache__")
    }
    for top in sorted(tops):
        yield Mount(Path(str(distribution.locate_file(top))).resolve(), _PACKAGES / top)


def _environment(name: str) -> dict[str, str]:
    """Return the variables for the shared packages, and for the hub's cache if the base needs it.

    Args:
        name: name of the base model.
    """
    variables = {"PYTHONPATH": str(_PACKAGES), "HF_HUB_OFFLINE": "1"}
    if not name.startswith("pypi:") and not Path(name).is_dir():
        from huggingface_hub import constants  # noqa: PLC0415 – takes a second, rarely needed

        variables["HF_HUB_CACHE"] = constants.HF_HUB_CACHE
    return variables
