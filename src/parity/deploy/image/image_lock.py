"""`kaggle/image.lock`: which image Kaggle runs, what is in it, and where each fact came from."""

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
_CERTAIN = ("torch", "numpy", "kaggle")  # whatever lacks one of these is another place's freeze


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is known of the image.

    Attributes:
        value: what is known.
        origin: `measured in the container`, `published in …` or `approximated from …`.
    """

    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class ImageLock:
    """What the lock says.

    Attributes:
        facts: name → fact; the names are `FACTS`. `git_commit` and `build_date` are what the
            image's /etc says of itself; `freeze` is a file beside the lock.
    """

    facts: dict[str, Fact]

    def value(self, name: str) -> str:
        """Return one fact's value."""
        return self.facts[name].value

    @property
    def reference(self) -> str:
        """The image as an engine pulls it: name@sha256:digest."""
        return f"{self.value('image')}@{self.value('digest')}"

    def digest(self) -> str:
        """Return the lock's own digest: of every fact and its origin."""
        return digest.of_value({name: asdict(fact) for name, fact in self.facts.items()})

    def write(self, path: Path) -> None:
        """Write the lock, a fact at a time, for a person to review."""
        files.write_json(path, {"schema": SCHEMA, **asdict(self)})


@dataclass(frozen=True, slots=True)
class Difference:
    """What two freezes differ in, by package.

    Attributes:
        added: name → version, only in the new one.
        removed: name → version, only in the old one.
        changed: name → old and new version.
    """

    added: dict[str, str]
    removed: dict[str, str]
    changed: dict[str, tuple[str, str]]

    def lines(self) -> list[str]:
        """Return the difference a line a package, and last a line of counts."""
        told = [f"+ {name} {_said(version)}" for name, version in self.added.items()]
        told += [f"- {name} {_said(version)}" for name, version in self.removed.items()]
        pairs = self.changed.items()
        told += [f"~ {name} {_said(old)} → {_said(new)}" for name, (old, new) in pairs]
        sizes = [len(self.added), len(self.removed), len(self.changed)]
        counts = "{} added, {} removed, {} changed".format(*sizes)
        return [*told, counts]


def read(path: Path) -> ImageLock:
    """Return the lock in a file.

    Raises:
        BadConfig: a fact is missing, unknown or of no stated origin, or the image is not pinned by
            its digest.
    """
    record = files.read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise BadConfig(f"{path.name}: no image lock of schema {SCHEMA}")
    facts = record.get("facts")
    if not isinstance(facts, dict) or facts.keys() != set(FACTS):
        odd = sorted(set(FACTS) ^ set(facts if isinstance(facts, dict) else ()))
        raise BadConfig(f"{path.name}: facts missing or unknown: {', '.join(odd)}")
    lock = ImageLock({name: _fact(path, name, facts[name]) for name in FACTS})
    if not _PINNED.fullmatch(lock.reference) or ":" in lock.value("image"):
        raise BadConfig(
            f"{path.name}: {lock.reference} is not pinned; want name@sha256:digest, "
            "never a tag such as :latest, which another image may have tomorrow"
        )
    return lock


def freeze(path: Path) -> str:
    """Return the freeze that the lock in `path` names, proven to be that one.

    Raises:
        Mismatch: the freeze was changed without the lock.
    """
    lock = read(path)
    place = path.with_name(lock.value("freeze"))
    if not place.is_file() or digest.of_file(place) != lock.value("freeze_sha256"):
        raise Mismatch(
            f"{place.name} is not the freeze that {path.name} names; "
            f"run: invoke image.lock --freeze {place.as_posix()}, or restore it"
        )
    return place.read_text(encoding="utf-8")


def base(reference: str) -> str:
    """Return a base image's reference, if it says once and for all which image is meant.

    Raises:
        BadConfig: it is neither pinned by a digest nor a local image with a tag of its own.

    >>> base("localhost/kaggle-standin:py312")
    'localhost/kaggle-standin:py312'
    """
    if _PINNED.fullmatch(reference) or _LOCAL.fullmatch(reference):
        return reference
    raise BadConfig(
        f"--base {reference}: want name@sha256:digest, or localhost/name:tag for one made here "
        "(:latest is refused)"
    )


def is_local(reference: str) -> bool:
    """Say whether a base was made on this machine, so that no registry has it.

    >>> is_local("localhost/kaggle-standin:py312")
    True
    """
    return reference.startswith("localhost/")


def relock(
    lock: ImageLock, old: str, new: str, measured: Mapping[str, str]
) -> tuple[ImageLock, str, Difference]:
    """Return the lock with a real freeze, the freeze as it is kept, and what it changes.

    Args:
        lock: the present one.
        old: the present freeze.
        new: what `pip freeze` printed in the container.
        measured: further facts read in the container, by name; empty ones are not known.

    Raises:
        BadData: `new` is no freeze of this image.
        BadConfig: a measured fact has a name that no fact has.
    """
    kept = tidy(new)
    if missing := [name for name in _CERTAIN if name not in freezes.parse(kept)]:
        raise BadData(
            f"the freeze names no {missing[0]}: it is not `pip freeze` of Kaggle's image; in the "
            f"container: pip freeze > FILE"
        )
    found = {name: value for name, value in measured.items() if value}
    if odd := sorted(set(found) - set(FACTS)):
        raise BadConfig(f"{odd[0]}: no such fact of the image; known are {', '.join(FACTS)}")
    found |= {"freeze": lock.value("freeze"), "freeze_sha256": digest.of_text(kept)}
    facts = lock.facts | {name: Fact(value, MEASURED) for name, value in found.items()}
    return replace(lock, facts=facts), kept, compare(old, kept)


def tidy(text: str) -> str:
    r"""Return a freeze a line a package, sorted, with no place of the machine it came from.

    Raises:
        BadData: a line is none of `pip freeze`.

    >>> tidy("six==1.17.0\n# note\ncudf @ file:///x/cudf-26.2-cp312-cp312-linux_x86_64.whl#sha=1\n")
    'cudf==26.2\nsix==1.17.0\n'
    >>> tidy("learntools @ git+https://github.com/Kaggle/learntools@01ab\n")
    'learntools @ elsewhere\n'
    """
    frozen = sorted(freezes.parse(text).items())
    return "".join(f"{name}=={v}\n" if v else f"{name} @ elsewhere\n" for name, v in frozen)


def compare(old: str, new: str) -> Difference:
    r"""Return what differs between two freezes.

    >>> compare("six==1.16\nnumpy==2.0.2\n", "six==1.17\nfaiss==1.15\n").lines()
    ['+ faiss 1.15', '- numpy 2.0.2', '~ six 1.16 → 1.17', '1 added, 1 removed, 1 changed']
    """
    before, after = freezes.parse(old), freezes.parse(new)
    both = sorted(before.keys() & after.keys())
    return Difference(
        added={name: after[name] for name in sorted(after.keys() - before.keys())},
        removed={name: before[name] for name in sorted(before.keys() - after.keys())},
        changed={n: (before[n], after[n]) for n in both if before[n] != after[n]},
    )


def _said(version: str) -> str:
    return version or "of no stated version"


def _fact(path: Path, name: str, record: Any) -> Fact:
    if not isinstance(record, dict) or record.keys() != {"value", "origin"}:
        raise BadConfig(f"{path.name}: {name}: want a value and its origin")
    fact = Fact(str(record["value"]), str(record["origin"]))
    if not fact.value or not fact.origin.startswith(_ORIGINS):
        raise BadConfig(
            f"{path.name}: {name}: {fact.origin!r} does not say where it came from; an origin "
            f"begins with one of: {', '.join(_ORIGINS)}"
        )
    return fact
