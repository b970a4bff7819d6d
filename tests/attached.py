"""A tiny input for the kernel's script, and the script started in this process, up to its children.

The files say nothing: what is tried is whether they are found, proven and passed on.
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
class Input:
    """What is attached to a kernel.

    Attributes:
        root: stands for /kaggle.
        bundle: folder of the bundle.
        house: folder of the wheelhouse.
        base: folder of the weights.
    """

    root: Path
    bundle: Path
    house: Path
    base: Path

    def seal(self, **facts: Any) -> None:
        """Seal the wheelhouse, then the bundle that names it, with these facts besides."""
        house = sealed_folder.seal(
            self.house, "wheelhouse", {"install": facts.pop("install", [PIN])}
        )
        told = {"wheelhouse": house, "parallelism": "queries", **facts}
        sealed_folder.seal(self.bundle, "bundle", told)


def attach(root: Path, layout: Layout, base: str = BASE) -> Input:
    """Lay out bundle, wheelhouse and base: a dataset with a manifest of its own, or a model."""
    place = root / "input"
    made = Input(root, place / layout(BUNDLE), place / layout(HOUSE), place / layout(base))
    (root / "working").mkdir(parents=True)
    for folder in (made.bundle, made.house, made.base):
        folder.mkdir(parents=True)
    for name, text in WEIGHTS.items():
        (made.base / name).write_text(text)
    record = {"name": "llm", "files": digest.of_tree(made.base), "license": "MIT"}
    if base == BASE:
        sealed_folder.seal(made.base, "base", {"name": "llm", "license": "MIT"})
    files.write_json(made.bundle / "base.json", record)
    (made.bundle / "adapter_model.safetensors").write_text("adapter")
    (made.house / "kaggle_parity-0.1.0-py3-none-any.whl").write_text("wheel")
    made.seal()
    return made


@dataclass(slots=True)
class Started:
    """What the script would have started.

    Attributes:
        pip: pip's words.
        launch: accelerate's words.
        env: the environment of both.
        target: the folder to install into was there.
    """

    pip: list[str] = field(default_factory=list)
    launch: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    target: bool = False


@dataclass(frozen=True, slots=True)
class Child:
    """A child that says something on standard error and ends."""

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


def start(root: Path, *, gpus: str = "", child: Child | None = None) -> Started:
    """Run the script in this process with `root` as /kaggle; its children are only noted.

    Args:
        root: as `attach` laid it out.
        gpus: what `nvidia-smi -L` says.
        child: how the package's half ends.
    """
    noted = Started()

    def install(words: Sequence[Any], **rest: Any) -> subprocess.CompletedProcess[str]:
        noted.pip, noted.env = [str(word) for word in words], rest["env"]
        noted.target = Path(noted.pip[noted.pip.index("--target") + 1]).is_dir()
        return subprocess.CompletedProcess(noted.pip, 0, "", "")

    def launch(words: Sequence[str], **rest: Any) -> Child:
        noted.launch = list(words)
        assert rest["env"] == noted.env
        return child or Child()

    replaced: dict[str, Callable[..., Any]] = {
        "run": install,
        "Popen": launch,
        "getoutput": lambda words: gpus if words == "nvidia-smi -L" else "",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARITY_KAGGLE", str(root))
        for name, instead in replaced.items():
            patch.setattr(subprocess, name, instead)
        runpy.run_path(str(KERNEL), run_name="__main__")
    return noted
