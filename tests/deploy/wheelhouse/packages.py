"""Small wheels for tests, and a local package index that serves them."""

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
    """Write a wheel with one module, named like the package unless `module` is given."""
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
    """A package index that serves the wheels in `folder` to pip and uv."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address

    def add(self, name: str, version: str, requires: Sequence[str] = (), **options: str) -> Path:
        """Write a wheel, serve it and return its path."""
        path = wheel(self.folder / "simple" / name, name, version, requires, **options)
        self.list(name)
        return path

    def list(self, name: str) -> None:
        """Write the page of one package again, from the files in its folder."""
        folder = self.folder / "simple" / name
        files = sorted(file for file in folder.iterdir() if file.name != "index.html")
        links = (
            f'<a href="{file.name}#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}">'
            f"{file.name}</a><br>"
            for file in files
        )
        page = "".join(links)
        (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{page}</body></html>")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Log nothing."""

    def end_headers(self) -> None:
        """Disable caching of pages, because a test may change them."""
        self.send_header("Cache-Control", "no-store")
        super().end_headers()


@contextmanager
def serving(folder: Path) -> Iterator[Index]:
    """Yield an index on 127.0.0.1 that runs until the block ends."""
    (folder / "simple").mkdir(parents=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Index(folder, f"http://127.0.0.1:{server.server_port}/simple/")
        finally:
            server.shutdown()
            thread.join()
