"""What the kernel imports: the project's lower rooms, and nothing that Kaggle's image lacks."""

import ast
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
KERNEL = ROOT / "src" / "parity" / "kernel.py"
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
IMPORTED = {
    *("accelerate", "numpy", "packaging", "pandas", "peft", "pydantic", "safetensors", "sklearn"),
    *("tokenizers", "torch", "tqdm", "transformers"),
}
ON_DEMAND = {"gguf", "huggingface_hub", "transformers"}
"""Imported within functions: a conversion, a download, a plan, which no kernel calls."""


def imported(path: Path, *, within: bool) -> set[str]:
    """Return the modules a file imports at its top, or within its functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if (id(node) in inner) != within:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def source_of(module: str) -> Path | None:
    stem = ROOT / "src" / Path(*module.split("."))
    return next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)


def closure() -> dict[str, Path]:
    """Return the project's modules that the package's half of the kernel loads.

    Its script loads none: it runs before there is a package.
    """
    found: dict[str, Path] = {}
    waiting = sorted(imported(KERNEL, within=False))
    while waiting:
        module = waiting.pop()
        path = source_of(module) if module.startswith("parity") else None
        if path is not None and module not in found:
            found[module] = path
            waiting += imported(path, within=False)
    return found


def foreign(*, within: bool) -> set[str]:
    paths = [KERNEL, *closure().values()]
    tops = {name.split(".")[0] for path in paths for name in imported(path, within=within)}
    return tops - sys.stdlib_module_names - {"parity"}


def test_the_kernel_loads_no_room_that_trains_compares_or_knows_this_machine() -> None:
    rooms = {module.split(".")[1] for module in closure() if "." in module}
    assert rooms == {"run", "competition", "retrieval", "shipping"}


def test_the_kernel_imports_what_the_image_has() -> None:
    assert foreign(within=False) == IMPORTED
    assert foreign(within=True) == ON_DEMAND
    lines = (ROOT / "kaggle" / "image-freeze.txt").read_text(encoding="utf-8").splitlines()
    frozen = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert {DISTRIBUTIONS.get(name, name) for name in IMPORTED} <= frozen


def test_the_list_above_names_installed_packages() -> None:
    known: Any = importlib.metadata.packages_distributions()
    assert {DISTRIBUTIONS.get(name, name) for name in IMPORTED} == {
        known[name][0] for name in IMPORTED
    }
