"""Wheels made up for tests, and a package index on this machine that serves them."""

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


def wheel(
    folder: Path,
    name: str,
    version: str,
    requires: Sequence[str] = (),
    *,
    tag: str = "py3-none-any",
    module: str = "",
) -> Path:
    """Make a wheel of one module, of the package's own name unless another is given."""
    stem = name.replace("-", "_")
    path = folder / f"{stem}-{version}-{tag}.whl"
    info = f"{stem}-{version}.dist-info"
    wants = "".join(f"Requires-Dist: {require}\n" for require in requires)
    contents = {
        f"{module or stem}/__init__.py": f'VERSION = "{version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{wants}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    contents[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*contents, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in contents.items():
            archive.writestr(zipfile.ZipInfo(file), text)
    return path


class Index:
    """A package index: what lies in `folder` is served as pip and uv ask for it."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address

    def add(self, name: str, version: str, requires: Sequence[str] = (), **how: str) -> Path:
        """Make a wheel and serve it; return its file."""
        place = self.folder / "simple" / name
        made = wheel(place, name, version, requires, **how)
        self.list(name)
        return made

    def list(self, name: str) -> None:
        """Write the page of one package anew, from the files that lie there."""
        place = self.folder / "simple" / name
        files = sorted(file for file in place.iterdir() if file.name != "index.html")
        links = (
            f'<a href="{file.name}#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}">'
            f"{file.name}</a><br>"
            for file in files
        )
        page = "".join(links)
        (place / "index.html").write_text(f"<!DOCTYPE html><html><body>{page}</body></html>")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def end_headers(self) -> None:
        """Let nobody remember a page, for a test may change it."""
        self.send_header("Cache-Control", "no-store")
        super().end_headers()


@contextmanager
def serving(folder: Path) -> Iterator[Index]:
    """Yield an index on 127.0.0.1 that ends with the block."""
    (folder / "simple").mkdir(parents=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Index(folder, f"http://127.0.0.1:{server.server_port}/simple/")
        finally:
            server.shutdown()
            thread.join()
