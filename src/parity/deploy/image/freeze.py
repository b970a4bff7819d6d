"""The freeze of an image: the names and versions that `pip freeze` prints in it.

The freeze is all we know of Kaggle's packages without running the image. An unreadable line is an
error, because with an incomplete freeze a wheel could overwrite a package of the image.
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
"""Packages installed from a URL: no index has their versions, so they cannot be pinned."""

_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)==([^\s;]+)")
_ADDRESS = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])? @ (\S+)")
_EDITABLE = re.compile(r"-e .*#egg=([A-Za-z0-9][\w.-]*)")


def normalize_name(name: str) -> str:
    """Return a package name in the form that package indexes compare.

    >>> normalize_name("Faiss_CPU")
    'faiss-cpu'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def public_version(version: str) -> str:
    """Return a version without its local part, which package indexes don't have.

    >>> public_version("2.10.0+cu128")
    '2.10.0'
    """
    return version.partition("+")[0]


def parse_pins(text: str) -> Iterator[tuple[str, str]]:
    r"""Yield name and version of each pinned package in a freeze or a lock file.

    >>> text = "torch==2.10.0+cu128\nsix==1.17.0 ; sys_platform == 'linux' \\\n  --hash=x"
    >>> list(parse_pins(text))
    [('torch', '2.10.0+cu128'), ('six', '1.17.0')]
    """
    for line in text.splitlines():
        if match := _PIN.match(line):
            yield normalize_name(match[1]), match[2]


def parse_freeze(text: str, origin: str = "freeze") -> dict[str, str]:
    r"""Return name → version from the output of `pip freeze`.

    The version is empty if a package was installed from a URL without a version.

    Args:
        text: the output.
        origin: its name in error messages.

    Raises:
        BadData: a line is not `pip freeze` output, a package has two versions, or the freeze is
            empty.

    >>> parse_freeze(
    ...     "Foo_Bar==1.0+cu128\nbaz @ https://a.b/baz-2.0-cp312-none-any.whl\nx @ git+https://c"
    ... )
    {'foo-bar': '1.0+cu128', 'baz': '2.0', 'x': ''}
    """
    frozen: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        package = _parse_line(line.strip())
        if package is None:
            raise BadData(f"{line[:60]!r} is not `pip freeze` output in {origin}, line {number}")
        name, version = package
        if frozen.setdefault(name, version) != version:
            raise BadData(f"{name} has two versions in {origin}, line {number}")
    if not frozen:
        raise BadData(f"no package in {origin}")
    return frozen


def fingerprint(frozen: Mapping[str, str]) -> str:
    r"""Return the digest of names and versions, independent of their order.

    >>> first, second = parse_freeze("# comment\na==1\nB==2"), parse_freeze("b==2\na==1")
    >>> fingerprint(first) == fingerprint(second)
    True
    """
    return digest.of_value(dict(frozen))


def constraints(frozen: Mapping[str, str]) -> str:
    r"""Return the freeze as resolver constraints: public versions of packages that an index has.

    Source:
        Kaggle's image is Colab's image plus a layer; the packages in `DIRECT` are not on an index.

    >>> constraints({"torch": "2.10.0+cu128", "google-colab": "1.0.0", "x": ""})
    'torch==2.10.0\n'
    """
    return "".join(
        f"{name}=={public_version(version)}\n"
        for name, version in sorted(frozen.items())
        if version and name not in DIRECT
    )


@dataclass(frozen=True, slots=True)
class Drift:
    """A package whose installed version differs from the image's.

    Attributes:
        name: normalized name.
        image: version in the image, empty if the image doesn't have it.
        installed: version in the compared environment, empty if it is not installed.
    """

    name: str
    image: str
    installed: str

    def __str__(self) -> str:
        return f"{self.name} {self.installed or 'absent'} (image: {self.image or 'absent'})"


def find_drift(frozen: Mapping[str, str], installed: Mapping[str, str]) -> list[Drift]:
    """Return the packages whose versions differ between the image and an environment, by name.

    Local versions are compared only if both sides have one: `2.10.0` equals `2.10.0+cu128`.

    Args:
        frozen: the image's packages, normalized name → version.
        installed: packages to compare, name → version; empty if not installed.

    >>> drifts = find_drift({"a": "1", "b": "2+gpu"}, {"A": "1", "b": "2+cpu", "c": "3"})
    >>> [str(drift) for drift in drifts]
    ['b 2+cpu (image: 2+gpu)', 'c 3 (image: absent)']
    """
    pairs = sorted((normalize_name(name), version) for name, version in installed.items())
    compared = [Drift(name, frozen.get(name, ""), version) for name, version in pairs]
    return [drift for drift in compared if not _is_same_version(drift.image, drift.installed)]


def _is_same_version(first: str, second: str) -> bool:
    if "+" in first and "+" in second:
        return first == second
    return public_version(first) == public_version(second)


def _parse_line(line: str) -> tuple[str, str] | None:
    if match := _PIN.fullmatch(line):
        return normalize_name(match[1]), match[2]
    if match := _ADDRESS.match(line):
        parts = unquote(match[2].partition("#")[0].rpartition("/")[2]).split("-")
        return normalize_name(match[1]), parts[1] if parts[-1].endswith(".whl") else ""
    if match := _EDITABLE.match(line):
        return normalize_name(match[1]), ""
    return None
