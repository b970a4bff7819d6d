"""The environment in which pip and uv run: the index's settings, and no other setting.

A machine's other settings (a folder of wheels, a second index, constraints) would find wheels that
nobody else has, or hide some. The index's address, and how to trust it, are passed on.
"""

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from parity.run.errors import StaleInput

_DROPPED_PREFIXES = ("PIP_", "UV_", "PYTHON")
_PASSED_SETTINGS = (
    *("index-url", "cert", "client-cert", "proxy", "trusted-host"),
    *("default-timeout", "timeout", "retries"),
)
_SECTIONS = ("global", "download", ":env:")  # later ones win
_CONFIG_SECONDS = 60
_SECONDS = 1800  # for one file; the largest are gigabytes
_SUMMARY_LENGTH = 400  # characters of a tool's output that an error repeats


def child_environment() -> dict[str, str]:
    """Return the environment for pip and uv: this one without their settings, plus the index's.

    uv gets the index that pip's variables or files name.
    """
    env = {k: value for k, value in os.environ.items() if not k.startswith(_DROPPED_PREFIXES)}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env |= {"UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
    settings = read_settings()
    env |= {f"PIP_{key.replace('-', '_').upper()}": value for key, value in settings.items()}
    if "index-url" in settings:
        env["UV_DEFAULT_INDEX"] = settings["index-url"]
    if "retries" in settings:
        env["UV_HTTP_RETRIES"] = settings["retries"]
    if "cert" in settings:
        env.setdefault("SSL_CERT_FILE", settings["cert"])
    return env


def isolated_environment(home: str) -> dict[str, str]:
    """Return an environment without any pip setting, to verify a wheelhouse in.

    Args:
        home: empty folder, so that pip finds no user settings.
    """
    env = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    pip_env = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**env, **pip_env, "HOME": home, "TMPDIR": home, "LC_ALL": "C.UTF-8"}


def read_settings() -> dict[str, str]:
    """Return the index's settings from pip's variables and files, by pip's names."""
    response = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_CONFIG_SECONDS,
    )
    return parse_settings(response.stdout) if response.returncode == 0 else {}


def parse_settings(listing: str) -> dict[str, str]:
    r"""Return the index's settings from the output of `pip config list`.

    >>> parse_settings(":env:.cert='/b'\nglobal.cert='/a'\nglobal.find-links='/wheels'\n")
    {'cert': '/b'}
    """
    settings: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in settings and name in _PASSED_SETTINGS:
            settings[section][name] = " ".join(str(ast.literal_eval(value)).split())
    return functools.reduce(lambda first, second: first | second, settings.values())


def run_tool(words: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run pip or uv and return its result, successful or not.

    Raises:
        StaleInput: it did not finish in time.
    """
    try:
        return subprocess.run(
            words,
            cwd=cwd,
            env=child_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise StaleInput(f"the package index took more than {_SECONDS} s. Try again") from error


def error_summary(stderr: str) -> str:
    """Return the cause of a failure from a tool's standard error, as one line."""
    lines = [line.strip(" ×╰─▶│├") for line in stderr.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("ERROR:")][-1:] or lines
    return " ".join(line for line in causes if not line.startswith("warning:"))[:_SUMMARY_LENGTH]
