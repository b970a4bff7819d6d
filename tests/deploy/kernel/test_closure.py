"""The kernel imports only lower rooms of the project and packages of Kaggle's image."""

import ast
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
KERNEL = ROOT / "src" / "parity" / "deploy" / "kernel" / "main.py"
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
IMPORTED = {
    *("accelerate", "numpy", "packaging", "pandas", "peft", "pydantic", "safetensors", "sklearn"),
    *("tokenizers", "torch", "tqdm", "transformers"),
}
ON_DEMAND = {"filelock", "huggingface_hub", "transformers"}
"""Packages imported within functions that the kernel does not call."""


def imported(path: Path, *, within: bool) -> set[str]:
    """Return the modules that a file imports at the top or within functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    modules: set[str] = set()
    for node in ast.walk(tree):
        if (id(node) in inner) != within:
            continue
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return modules


def source_of(module: str) -> Path | None:
    stem = ROOT / "src" / Path(*module.split("."))
    return next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)


def closure() -> dict[str, Path]:
    """Return the project's modules that the kernel's main module loads.

    The kernel's script loads none, because it runs before the package is installed.
    """
    modules: dict[str, Path] = {}
    waiting = sorted(imported(KERNEL, within=False))
    while waiting:
        module = waiting.pop()
        path = source_of(module) if module.startswith("parity") else None
        if path is not None and module not in modules:
            modules[module] = path
            waiting += imported(path, within=False)
    return modules


def foreign(*, within: bool) -> set[str]:
    paths = [KERNEL, *closure().values()]
    tops = {name.split(".")[0] for path in paths for name in imported(path, within=within)}
    return tops - sys.stdlib_module_names - {"parity"}


def test_the_kernel_loads_no_room_for_training_analysis_or_the_pipeline() -> None:
    rooms = {module.split(".")[1] for module in closure() if "." in module}
    assert rooms == {"run", "competition", "retrieval", "deploy"}


def test_the_kernel_imports_only_packages_of_the_image() -> None:
    assert foreign(within=False) == IMPORTED
    assert foreign(within=True) == ON_DEMAND
    lines = (ROOT / "kaggle" / "image-freeze.txt").read_text(encoding="utf-8").splitlines()
    frozen = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert {DISTRIBUTIONS.get(name, name) for name in IMPORTED} <= frozen


def test_the_imported_packages_are_installed() -> None:
    distributions: Any = importlib.metadata.packages_distributions()
    assert {DISTRIBUTIONS.get(name, name) for name in IMPORTED} == {
        distributions[name][0] for name in IMPORTED
    }
