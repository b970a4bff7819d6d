"""Hatch build hook: put the folders that a checkout has at its root into the wheel.

The run files, the project's own competitions, the kernel's script, the image's lock and freeze and
the lock of the wheels become package data under `parity/resources`, and `build.json` records the
commit and the digest of requirements.lock, which `parity --version` prints.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RESOURCES = (
    "data/synthetic",
    "data/tiny-table",
    "kaggle/image-freeze.txt",
    "kaggle/image.lock",
    "kaggle/kernel.py",
    "offline_wheels/wheels.lock",
    "runs",
)
"""Files and folders that travel with the package, relative to the checkout."""


class ResourceHook(BuildHookInterface[Any]):
    """Adds the resources to a wheel that is not editable."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name what the wheel includes besides `src/parity`."""
        if self.target_name != "wheel" or version == "editable":
            return
        root = Path(self.root)
        self._folder = tempfile.TemporaryDirectory()
        record = Path(self._folder.name) / "build.json"
        record.write_text(
            json.dumps(_describe_build(root), sort_keys=True) + "\n", encoding="utf-8"
        )
        included = {str(root / name): f"parity/resources/{name}" for name in RESOURCES}
        build_data["force_include"] |= {**included, str(record): "parity/resources/build.json"}

    def finalize(self, version: str, build_data: Any, artifact_path: str) -> None:  # noqa: ARG002
        """Remove the temporary folder."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def _describe_build(root: Path) -> dict[str, str]:
    """Return what the package itself reports of this checkout; the code loads no dependency."""
    sys.path.insert(0, str(root / "src"))
    try:
        from parity.run.resources import describe_build  # noqa: PLC0415 – not installed yet
    finally:
        sys.path.pop(0)
    return describe_build()
