"""The build of the project's own wheel, whose bytes depend only on the code.

The wheel holds the package's modules and templates and nothing else: no run files, no data. It is
written from the package that runs, so a checkout and an installed package give the same bytes.
"""

import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from parity.run import files
from parity.run.errors import BadData

_DATE = (2020, 1, 1, 0, 0, 0)  # of every file in the wheel, so that equal code has equal bytes
_FILE_MODE = 0o100644 << 16  # in the bits where a zip file stores it
_SUFFIXES = frozenset((".py", ".j2", ".typed"))
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_METADATA = """\
Metadata-Version: 2.1
Name: kaggle-parity
Version: {version}
Summary: The inference code of kaggle-parity; the image and the wheelhouse bring what it needs
License: Apache-2.0
Requires-Python: >=3.11
"""
_WHEEL = """\
Wheel-Version: 1.0
Generator: kaggle-parity
Root-Is-Purelib: true
Tag: py3-none-any
"""


def build_project_wheel(folder: Path, package: Path | None = None) -> Path:
    """Write the project's wheel into `folder` and return its path.

    Its bytes depend only on the code: names are sorted, and files are stored uncompressed because
    zlib versions compress differently. An existing file with the same bytes is not touched.

    Args:
        folder: where the wheel goes; wheels of other versions there are removed.
        package: folder of the package `parity`; the running one if None.

    Raises:
        BadData: the package states no version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = package or Path(str(resources.files("parity")))
    version = _version(source)
    target = folder / f"kaggle_parity-{version}-py3-none-any.whl"
    for old in folder.glob("kaggle_parity-*.whl"):
        if old != target:
            old.unlink()  # a wheel of another version would be shipped with the new one
    contents = _wheel_bytes(source, version)
    if not target.is_file() or target.read_bytes() != contents:
        with files.replacing(target) as temporary:
            temporary.write_bytes(contents)
    return target


def _version(package: Path) -> str:
    match = _VERSION.search((package / "__init__.py").read_text(encoding="utf-8"))
    if match is None:
        raise BadData(f"{package.name}/__init__.py states no __version__")
    return match[1]


def _wheel_bytes(package: Path, version: str) -> bytes:
    """Build a wheel as the packaging specification for binary distributions describes it."""
    info = f"kaggle_parity-{version}.dist-info"
    contents = dict(_sources(package))
    contents[f"{info}/METADATA"] = _METADATA.format(version=version).encode()
    contents[f"{info}/WHEEL"] = _WHEEL.encode()
    record = f"{info}/RECORD"
    lines = [_record_line(name, data) for name, data in sorted(contents.items())]
    contents[record] = "".join(sorted([*lines, f"{record},,\n"])).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(contents.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3  # Unix, whose modes are stored
            entry.external_attr = _FILE_MODE
            archive.writestr(entry, data)
    return buffer.getvalue()


def _sources(package: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name in the wheel and the bytes of each module and template."""
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package)
        if path.suffix in _SUFFIXES and name.parts[0] != "resources" and path.is_file():
            yield f"parity/{name.as_posix()}", path.read_bytes()


def _record_line(name: str, data: bytes) -> str:
    sha256 = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"{name},sha256={sha256},{len(data)}\n"
