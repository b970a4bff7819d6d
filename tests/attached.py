"""A tiny input for the kernel's script, and the script run in this process with fake children.

The files have dummy contents: the tests check that they are found, verified and passed on.
"""

import runpy
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from parity.deploy.bundle import sealed_folder
from parity.deploy.kernel.mounts import Layout
from parity.run import digest, files

KERNEL = Path(__file__).parents[1] / "kaggle" / "kernel.py"
BUNDLE, HOUSE, BASE, MODEL = (
    "ann/small-bundle",
    "ann/wheels",
    "ann/llm",
    "ann/llm/transformers/7b/1",
)
PIN = "kaggle-parity==0.1.0"
WEIGHTS = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "tokens"}


@dataclass(slots=True)
class KernelInput:
    """The datasets attached to a kernel.

    Attributes:
        root: folder used as /kaggle.
        bundle: folder of the bundle.
        house: folder of the wheelhouse.
        base: folder of the weights.
    """

    root: Path
    bundle: Path
    house: Path
    base: Path

    def seal(self, **facts: Any) -> None:
        """Seal the wheelhouse, then the bundle that names it, with more facts."""
        house = sealed_folder.seal(
            self.house, "wheelhouse", {"install": facts.pop("install", [PIN])}
        )
        bundle_facts = {"wheelhouse": house, "parallelism": "queries", **facts}
        sealed_folder.seal(self.bundle, "bundle", bundle_facts)


def attach(root: Path, layout: Layout, base: str = BASE) -> KernelInput:
    """Write bundle, wheelhouse and base, which is a dataset with its own manifest, or a model."""
    input_ = root / "input"
    kernel_input = KernelInput(
        root, input_ / layout(BUNDLE), input_ / layout(HOUSE), input_ / layout(base)
    )
    (root / "working").mkdir(parents=True)
    for folder in (kernel_input.bundle, kernel_input.house, kernel_input.base):
        folder.mkdir(parents=True)
    for name, text in WEIGHTS.items():
        (kernel_input.base / name).write_text(text)
    record = {"name": "llm", "files": digest.of_tree(kernel_input.base), "license": "MIT"}
    if base == BASE:
        sealed_folder.seal(kernel_input.base, "base", {"name": "llm", "license": "MIT"})
    files.write_json(kernel_input.bundle / "base.json", record)
    (kernel_input.bundle / "adapter_model.safetensors").write_text("adapter")
    (kernel_input.house / "kaggle_parity-0.1.0-py3-none-any.whl").write_text("wheel")
    kernel_input.seal()
    return kernel_input


@dataclass(slots=True)
class StartedCommands:
    """Commands that the script started.

    Attributes:
        pip: pip's arguments.
        launch: accelerate's arguments.
        env: environment of both.
        has_target: whether the installation folder existed.
    """

    pip: list[str] = field(default_factory=list)
    launch: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    has_target: bool = False


@dataclass(frozen=True, slots=True)
class Child:
    """A child process that writes to standard error and exits."""

    stderr: Sequence[str] = ()
    returncode: int = 0

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let every error pass."""


def start(root: Path, *, gpus: str = "", child: Child | None = None) -> StartedCommands:
    """Run the script in this process with `root` as /kaggle, and record the commands it starts.

    Args:
        root: folder written by `attach`.
        gpus: output of `nvidia-smi -L`.
        child: how the package's process ends.
    """
    started = StartedCommands()

    def install(words: Sequence[Any], **options: Any) -> subprocess.CompletedProcess[str]:
        started.pip, started.env = [str(word) for word in words], options["env"]
        started.has_target = Path(started.pip[started.pip.index("--target") + 1]).is_dir()
        return subprocess.CompletedProcess(started.pip, 0, "", "")

    def launch(words: Sequence[str], **options: Any) -> Child:
        started.launch = list(words)
        assert options["env"] == started.env
        return child or Child()

    replaced: dict[str, Callable[..., Any]] = {
        "run": install,
        "Popen": launch,
        "getoutput": lambda words: gpus if words == "nvidia-smi -L" else "",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARITY_KAGGLE", str(root))
        for name, fake in replaced.items():
            patch.setattr(subprocess, name, fake)
        runpy.run_path(str(KERNEL), run_name="__main__")
    return started
