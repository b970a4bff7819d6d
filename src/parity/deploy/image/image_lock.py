"""`kaggle/image.lock`: the image that Kaggle runs, its content, and the origin of each fact."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from parity.deploy.image import freeze as freezes
from parity.run import digest, files
from parity.run.errors import BadConfig, BadData, Mismatch

SCHEMA = 1
FACTS = (
    *("image", "digest", "tag", "git_commit", "build_date", "colab_base"),
    *("python", "glibc", "freeze", "freeze_sha256"),
)
MEASURED = "measured in the container"
_ORIGINS = (MEASURED, "published in ", "approximated from ")
_PINNED = re.compile(r"[\w./:-]+@sha256:[0-9a-f]{64}")
_LOCAL = re.compile(r"localhost/[\w./-]+:(?!latest$)[\w.-]+")
_REQUIRED = ("torch", "numpy", "kaggle")  # without all three, the freeze is not of Kaggle's image


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact about the image.

    Attributes:
        value: the fact, as text.
        origin: `measured in the container`, `published in …` or `approximated from …`.
    """

    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class ImageLock:
    """The facts that the lock records.

    Attributes:
        facts: name → fact; the names are `FACTS`. `git_commit` and `build_date` come from the
            image's /etc; `freeze` is the name of a file in the lock's folder.
    """

    facts: dict[str, Fact]

    def value(self, name: str) -> str:
        """Return the value of a fact."""
        return self.facts[name].value

    @property
    def reference(self) -> str:
        """The image in the form that an engine pulls: name@sha256:digest."""
        return f"{self.value('image')}@{self.value('digest')}"

    def digest(self) -> str:
        """Return the digest of the lock: of every fact and its origin."""
        return digest.of_value({name: asdict(fact) for name, fact in self.facts.items()})

    def write(self, path: Path) -> None:
        """Write the lock, one fact per entry, so that a diff is easy to review."""
        files.write_json(path, {"schema": SCHEMA, **asdict(self)})


@dataclass(frozen=True, slots=True)
class FreezeDifference:
    """The difference between two freezes, by package.

    Attributes:
        added: name → version, only in the new freeze.
        removed: name → version, only in the old freeze.
        changed: name → old and new version.
    """

    added: dict[str, str]
    removed: dict[str, str]
    changed: dict[str, tuple[str, str]]

    def lines(self) -> list[str]:
        """Return one line per package, and a last line with the counts."""
        lines = [f"+ {name} {_shown(version)}" for name, version in self.added.items()]
        lines += [f"- {name} {_shown(version)}" for name, version in self.removed.items()]
        pairs = self.changed.items()
        lines += [f"~ {name} {_shown(old)} → {_shown(new)}" for name, (old, new) in pairs]
        sizes = [len(self.added), len(self.removed), len(self.changed)]
        return [*lines, "{} added, {} removed, {} changed".format(*sizes)]


def read(path: Path) -> ImageLock:
    """Return the lock from a file.

    Raises:
        BadConfig: a fact is missing or unknown, has no origin, or the image is not pinned by its
            digest.
    """
    record = files.read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise BadConfig(f"{path.name} is not an image lock of schema {SCHEMA}")
    facts = record.get("facts")
    if not isinstance(facts, dict) or facts.keys() != set(FACTS):
        names = sorted(set(FACTS) ^ set(facts if isinstance(facts, dict) else ()))
        raise BadConfig(f"facts missing or unknown in {path.name}: {', '.join(names)}")
    lock = ImageLock({name: _fact(path, name, facts[name]) for name in FACTS})
    if not _PINNED.fullmatch(lock.reference) or ":" in lock.value("image"):
        raise BadConfig(
            f"{lock.reference} is not pinned in {path.name}. Use name@sha256:digest; a tag such as "
            ":latest may point to another image tomorrow"
        )
    return lock


def read_freeze(path: Path) -> str:
    """Return the freeze that the lock in `path` names, after checking its digest.

    Raises:
        Mismatch: the freeze changed but the lock did not.
    """
    lock = read(path)
    freeze = path.with_name(lock.value("freeze"))
    if not freeze.is_file() or digest.of_file(freeze) != lock.value("freeze_sha256"):
        raise Mismatch(
            f"{freeze.name} is missing or differs from its digest in {path.name}. Restore it, or "
            "lock it",
            fix=("image.lock", "--freeze", freeze.as_posix()),
        )
    return freeze.read_text(encoding="utf-8")


def validate_base(reference: str) -> str:
    """Return a base image's reference if it always means the same image.

    Raises:
        BadConfig: it is neither pinned by digest nor a local image with a tag.

    >>> validate_base("localhost/kaggle-standin:py312")
    'localhost/kaggle-standin:py312'
    """
    if _PINNED.fullmatch(reference) or _LOCAL.fullmatch(reference):
        return reference
    raise BadConfig(
        f"--base {reference} is not pinned. Use name@sha256:digest, or localhost/name:tag for an "
        "image built on this machine (:latest is refused)"
    )


def is_local(reference: str) -> bool:
    """Return whether a base was built on this machine, so that no registry has it.

    >>> is_local("localhost/kaggle-standin:py312")
    True
    """
    return reference.startswith("localhost/")


def replace_freeze(
    lock: ImageLock, old: str, new: str, measured: Mapping[str, str]
) -> tuple[ImageLock, str, FreezeDifference]:
    """Return the lock with a measured freeze, that freeze normalized, and the difference.

    Args:
        lock: the present lock.
        old: the present freeze.
        new: output of `pip freeze` in the container.
        measured: other facts read in the container, by name; empty if unknown.

    Raises:
        BadData: `new` is not a freeze of this image.
        BadConfig: `measured` has an unknown name.
    """
    normalized = normalize_freeze(new)
    if missing := [name for name in _REQUIRED if name not in freezes.parse_freeze(normalized)]:
        raise BadData(
            f"{missing[0]} is missing in the freeze: it is not `pip freeze` of Kaggle's image. In "
            "the container, run: pip freeze > FILE"
        )
    values = {name: value for name, value in measured.items() if value}
    if unknown := sorted(set(values) - set(FACTS)):
        raise BadConfig(f"{unknown[0]} is not a fact of the image. Use one of: {', '.join(FACTS)}")
    values |= {"freeze": lock.value("freeze"), "freeze_sha256": digest.of_text(normalized)}
    facts = lock.facts | {name: Fact(value, MEASURED) for name, value in values.items()}
    return replace(lock, facts=facts), normalized, compare_freezes(old, normalized)


def normalize_freeze(text: str) -> str:
    r"""Return a freeze sorted, one line per package, without paths of the machine it came from.

    Raises:
        BadData: a line is not `pip freeze` output.

    >>> text = "six==1.17.0\n# note\ncudf @ file:///x/cudf-26.2-cp312-cp312-linux_x86_64.whl#sha=1\n"
    >>> normalize_freeze(text)
    'cudf==26.2\nsix==1.17.0\n'
    >>> normalize_freeze("learntools @ git+https://github.com/Kaggle/learntools@01ab\n")
    'learntools @ elsewhere\n'
    """
    frozen = sorted(freezes.parse_freeze(text).items())
    return "".join(f"{name}=={v}\n" if v else f"{name} @ elsewhere\n" for name, v in frozen)


def compare_freezes(old: str, new: str) -> FreezeDifference:
    r"""Return the difference between two freezes.

    >>> compare_freezes("six==1.16\nnumpy==2.0.2\n", "six==1.17\nfaiss==1.15\n").lines()
    ['+ faiss 1.15', '- numpy 2.0.2', '~ six 1.16 → 1.17', '1 added, 1 removed, 1 changed']
    """
    before, after = freezes.parse_freeze(old), freezes.parse_freeze(new)
    shared = sorted(before.keys() & after.keys())
    return FreezeDifference(
        added={name: after[name] for name in sorted(after.keys() - before.keys())},
        removed={name: before[name] for name in sorted(before.keys() - after.keys())},
        changed={n: (before[n], after[n]) for n in shared if before[n] != after[n]},
    )


def _shown(version: str) -> str:
    return version or "of unknown version"


def _fact(path: Path, name: str, record: Any) -> Fact:
    if not isinstance(record, dict) or record.keys() != {"value", "origin"}:
        raise BadConfig(f"{name} needs a value and an origin in {path.name}")
    fact = Fact(str(record["value"]), str(record["origin"]))
    if not fact.value or not fact.origin.startswith(_ORIGINS):
        raise BadConfig(
            f"{name} has no value or no valid origin ({fact.origin!r}) in {path.name}. An origin "
            f"starts with one of: {', '.join(_ORIGINS)}"
        )
    return fact
