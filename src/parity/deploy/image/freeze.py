"""A freeze: what `pip freeze` says of an image, as names and versions to resolve and compare under.

It is the one thing known of Kaggle's image without running it, so a line nobody understands is an
error: a freeze that was cut off would let a wheel overwrite a package of the image.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from parity.run import digest
from parity.run.errors import BadData

DIRECT = frozenset(
    {
        *("cucim-cu12", "cuvs-cu12", "nx-cugraph-cu12"),
        *("en-core-web-sm", "google-colab", "segment-anything"),
    }
)
"""Installed in the image from an address: their versions are on no index, nothing can be pinned."""

_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)==([^\s;]+)")
_ADDRESS = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])? @ (\S+)")
_EDITABLE = re.compile(r"-e .*#egg=([A-Za-z0-9][\w.-]*)")


def normal(name: str) -> str:
    """Return a package's name as package indexes compare it.

    >>> normal("Faiss_CPU")
    'faiss-cpu'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def public(version: str) -> str:
    """Return a version without its local part, which no index has.

    >>> public("2.10.0+cu128")
    '2.10.0'
    """
    return version.partition("+")[0]


def pins(text: str) -> Iterator[tuple[str, str]]:
    r"""Yield name and version of each pinned package of a freeze or a lock.

    >>> list(pins("torch==2.10.0+cu128\nsix==1.17.0 ; sys_platform == 'linux' \\\n  --hash=x"))
    [('torch', '2.10.0+cu128'), ('six', '1.17.0')]
    """
    for line in text.splitlines():
        found = _PIN.match(line)
        if found:
            yield normal(found[1]), found[2]


def parse(text: str, origin: str = "freeze") -> dict[str, str]:
    r"""Return name → version of what `pip freeze` printed.

    The version is empty where a package came from an address that does not tell it.

    Args:
        text: what was printed.
        origin: how an error calls it.

    Raises:
        BadData: a line is none of `pip freeze`, a package is there with two versions, or none is.

    >>> parse("Foo_Bar==1.0+cu128\nbaz @ https://a.b/baz-2.0-cp312-none-any.whl\nx @ git+https://c")
    {'foo-bar': '1.0+cu128', 'baz': '2.0', 'x': ''}
    """
    frozen: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _line(line.strip())
        if found is None:
            raise BadData(f"{origin}, line {number}: {line[:60]!r} is no line of pip freeze")
        name, version = found
        if frozen.setdefault(name, version) != version:
            raise BadData(f"{origin}, line {number}: {name} is there twice, with two versions")
    if not frozen:
        raise BadData(f"{origin}: no package in it")
    return frozen


def fingerprint(frozen: Mapping[str, str]) -> str:
    r"""Return the digest of names and versions, whatever their order and the comments between.

    >>> fingerprint(parse("# made by hand\na==1\nB==2")) == fingerprint(parse("b==2\na==1"))
    True
    """
    return digest.of_value(dict(frozen))


def constraints(frozen: Mapping[str, str]) -> str:
    r"""Return the freeze as constraints for a resolver: what an index can have, public versions.

    Source:
        Kaggle's image is Colab's plus a layer; its README's `Use` names what is not on an index.

    >>> constraints({"torch": "2.10.0+cu128", "google-colab": "1.0.0", "x": ""})
    'torch==2.10.0\n'
    """
    return "".join(
        f"{name}=={public(version)}\n"
        for name, version in sorted(frozen.items())
        if version and name not in DIRECT
    )


@dataclass(frozen=True, slots=True)
class Drift:
    """A package that is not what the image has.

    Attributes:
        name: its normalized name.
        image: its version in the image, empty where the image has none.
        here: its version here, empty where it is not installed.
    """

    name: str
    image: str
    here: str

    def __str__(self) -> str:
        return f"{self.name} {self.here or 'absent'} (image: {self.image or 'absent'})"


def drift(frozen: Mapping[str, str], installed: Mapping[str, str]) -> list[Drift]:
    """Return what differs between the image and an environment, by name.

    A build is compared only where both name one: `2.10.0` is no drift from `2.10.0+cu128`.

    Args:
        frozen: the image's packages, normalized name → version.
        installed: the packages to compare, name → version; empty where not installed.

    >>> [str(one) for one in drift({"a": "1", "b": "2+cu128"}, {"A": "1", "b": "2+cpu", "c": "3"})]
    ['b 2+cpu (image: 2+cu128)', 'c 3 (image: absent)']
    """
    pairs = sorted((normal(name), here) for name, here in installed.items())
    compared = [Drift(name, frozen.get(name, ""), here) for name, here in pairs]
    return [one for one in compared if not _same(one.image, one.here)]


def _same(one: str, other: str) -> bool:
    if "+" in one and "+" in other:
        return one == other
    return public(one) == public(other)


def _line(line: str) -> tuple[str, str] | None:
    if found := _PIN.fullmatch(line):
        return normal(found[1]), found[2]
    if found := _ADDRESS.match(line):
        parts = unquote(found[2].partition("#")[0].rpartition("/")[2]).split("-")
        return normal(found[1]), parts[1] if parts[-1].endswith(".whl") else ""
    if found := _EDITABLE.match(line):
        return normal(found[1]), ""
    return None
