"""The naming and prose rules that a program can check: words, names, class names, config docs.

`python tests/test_language.py PATH...` prints what breaks them in some files.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("src", "tests", "benchmarks", "tools")

FILLERS = frozenset(
    """
    one ones it its found told asked known odd place places made wanted kept held said says given
    given_ there here whole what which whoever own theirs ours mine again bare most named now alone
    both others rest some more where why how same inside ended left judged lacking two twos beside
    thing things stuff under then begun caught foretold mended taught learnt lessons
    """.split()  # noqa: SIM905
)
"""Variable names that do not say what the variable holds."""
MOST_FILLERS = 0.01
"""Largest share of fillers among the names stored or taken as arguments."""

BANNED = (
    r"\banew\b",
    r"\bmends?\b|\bmended\b|\bmending\b",
    r"\btells?\b|\btold\b",
    r"\blacks?\b|\blacked\b|\blacking\b",
    r"\bforetold\b|\bforetell",
    r"\bwhoever\b|\bwhatever\b",
    r"\bparted\b",
    r"\bfor ever\b",
    r"\bbeside\b",
    r"\bat hand\b",
    r"\bbare bases?\b",
    r"(?<!there )\bis no [a-z]",
    r"\bnone of\b",
    r"\bexemplars?\b|\bworked examples?\b",
    r"\blearnt\b|\bpolluted\b",
    r"\bquantis|\blicence|\blabelled\b|\bnormalis|\bcolour|\bbehaviour|\bartefact|\bfavour\b",
)
"""Words that a colleague would not say in a code review, or that are not US English."""
WORDS = re.compile("|".join(BANNED), re.IGNORECASE)
EXCUSED: dict[str, str] = {
    "tests/test_language.py": "it lists the words",
    "benchmarks/run_log/log.py": "a header and a mark of the diary's log",
    "tests/benchmarks_run_log/test_log.py": "rows of the diary's log",
    "tests/benchmarks_run_log/test_log_text.py": "rows of the diary's log",
}
"""File → why it may hold banned words."""


def files() -> list[Path]:
    """Return the project's own Python files."""
    paths = [path for name in CODE for path in sorted((ROOT / name).rglob("*.py"))]
    return [ROOT / "tasks.py", *paths]


def stored_names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and name of every variable stored and every argument taken in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every comment, string and definition's name in a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), start=1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING) or token.type == getattr(
            tokenize, "FSTRING_MIDDLE", -1
        ):
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name.replace("_", " ")


def banned(path: Path) -> list[str]:
    """Return `path:line: word` for every banned word of a file."""
    name = path.relative_to(ROOT).as_posix()
    return [
        f"{name}:{line}: {match[0]}" for line, text in prose(path) for match in WORDS.finditer(text)
    ]


def fillers(path: Path) -> list[str]:
    """Return `path:line: name` for every filler name of a file."""
    name = path.relative_to(ROOT).as_posix()
    return [f"{name}:{line}: {stored}" for line, stored in stored_names(path) if stored in FILLERS]


def test_names_say_what_they_hold() -> None:
    names = [name for path in files() for _, name in stored_names(path)]
    share = sum(name in FILLERS for name in names) / len(names)
    assert share <= MOST_FILLERS, Counter(name for name in names if name in FILLERS).most_common(20)


def test_prose_uses_the_field_s_words() -> None:
    words = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "*.py", "*.md", "*.toml"]
    listing = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    tracked = [ROOT / name for name in listing.split("\0") if name]
    if not tracked:
        pytest.skip("this is not a git checkout: nothing says which files are tracked")
    problems = [
        problem
        for path in tracked
        if path.is_file() and path.relative_to(ROOT).as_posix() not in EXCUSED
        for problem in banned(path)
    ]
    assert problems == []


def test_a_class_name_exists_once_in_the_package() -> None:
    names = Counter(
        node.name
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in names.items() if count > 1} == set()


def main(arguments: list[str]) -> None:
    """Print what breaks the rules in files or folders."""
    paths = [
        path
        for argument in map(Path, arguments)
        for path in (sorted(argument.rglob("*.py")) if argument.is_dir() else [argument])
    ]
    total = stored = 0
    for path in map(Path.resolve, paths):
        for problem in (*banned(path), *(fillers(path) if path.suffix == ".py" else ())):
            print(problem)
        if path.suffix == ".py":
            total += len(list(stored_names(path)))
            stored += len(fillers(path))
    print(f"{stored} fillers of {total} names", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
