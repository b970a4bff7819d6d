"""How a child process reaches the package index, and nothing else of what pip and uv are told.

A machine's own settings (a folder of wheels, a second index, constraints) would find what nobody
else has, or hide it; where the index is, and how to trust it, must stay.
"""

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from parity.run.errors import StaleInput

_DROPPED = ("PIP_", "UV_", "PYTHON")
_KEPT = (
    *("index-url", "cert", "client-cert", "proxy", "trusted-host"),
    *("default-timeout", "timeout", "retries"),
)
_SECTIONS = ("global", "download", ":env:")  # the later wins
_CONFIG_SECONDS = 60
_SECONDS = 1800  # for one file; the largest are gigabytes
_TOLD = 400  # characters of a tool's words that an error repeats


def environment() -> dict[str, str]:
    """Return the environment for pip and uv: this one, less their settings, plus the index's.

    Where pip is told of an index by a variable or a file, uv asks the same one.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_DROPPED)}
    kept |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    kept |= {"UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
    told = settings()
    kept |= {f"PIP_{key.replace('-', '_').upper()}": value for key, value in told.items()}
    if "index-url" in told:
        kept["UV_DEFAULT_INDEX"] = told["index-url"]
    if "retries" in told:
        kept["UV_HTTP_RETRIES"] = told["retries"]
    if "cert" in told:
        kept.setdefault("SSL_CERT_FILE", told["cert"])
    return kept


def isolated(home: str) -> dict[str, str]:
    """Return an environment in which pip is told nothing at all, for a proof.

    Args:
        home: an empty folder, so that no user's settings are found.
    """
    kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    told = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**kept, **told, "HOME": home, "TMPDIR": home, "LC_ALL": "C.UTF-8"}


def settings() -> dict[str, str]:
    """Return what pip's variables and files say of where the index is, by pip's names."""
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_CONFIG_SECONDS,
    )
    return parse(answer.stdout) if answer.returncode == 0 else {}


def parse(listed: str) -> dict[str, str]:
    r"""Return the settings that reach the index from what `pip config list` prints.

    >>> parse(":env:.cert='/b'\nglobal.cert='/a'\nglobal.find-links='/wheels'\n")
    {'cert': '/b'}
    """
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in found and name in _KEPT:
            found[section][name] = " ".join(str(ast.literal_eval(value)).split())
    return functools.reduce(lambda one, other: one | other, found.values())


def ask(words: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run pip or uv to its end, whatever its exit code.

    Raises:
        StaleInput: it took too long.
    """
    try:
        return subprocess.run(
            words,
            cwd=cwd,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise StaleInput(f"the package index took more than {_SECONDS} s; try again") from error


def last_words(errors: str) -> str:
    """Return what of a tool's standard error tells why, as one line."""
    told = [line.strip(" ×╰─▶│├") for line in errors.splitlines() if line.strip()]
    blamed = [line for line in told if line.startswith("ERROR:")][-1:] or told
    return " ".join(line for line in blamed if not line.startswith("warning:"))[:_TOLD]
