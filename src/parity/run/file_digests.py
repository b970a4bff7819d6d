"""Remember the sha256 of large files, so that weights are not read again at every command.

A file counts as unchanged while its size, modification time and inode are the same. Small files are
read every time.
"""

import json
from pathlib import Path

from parity.run import digest, files

SMALL = 1 << 20
"""Bytes of a file that is not worth remembering."""


class FileDigests:
    """A memory of sha256 digests on disk.

    Attributes:
        path: JSON file of the memory; it may be removed at any time.
    """

    def __init__(self, path: Path) -> None:
        """Read the memory; an unreadable one is empty."""
        self.path = path
        try:
            memory = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            memory = {}
        self._memory: dict[str, list[object]] = memory if isinstance(memory, dict) else {}

    def of_file(self, path: Path) -> str:
        """Return the sha256 of a file's bytes; read it only if it is new or was changed."""
        status = path.stat()
        if status.st_size < SMALL:
            return digest.of_file(path)
        stamp: list[object] = [status.st_size, status.st_mtime_ns, status.st_ino]
        name = str(path.resolve())
        before = self._memory.get(name)
        if before is not None and before[:-1] == stamp:
            return str(before[-1])
        sha256 = digest.of_file(path)
        self._memory[name] = [*stamp, sha256]
        files.write_text(self.path, json.dumps(self._memory, indent=1, sort_keys=True) + "\n")
        return sha256
