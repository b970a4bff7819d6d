"""Of pip's and uv's settings on a machine, only the index's reach a child process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parity.deploy.wheelhouse import package_index
from parity.run.errors import StaleInput


def test_only_the_settings_of_the_index_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = http://127.0.0.1:1/simple\nextra-index-url = http://127.0.0.1:2\n"
        "find-links = /somewhere\ntrusted-host =\n    one\n    two\n"
        "[download]\ntimeout = 3\n[install]\nproxy = none\n"
    )
    for name in [key for key in os.environ if key.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CERT", "cert.pem")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    env = package_index.child_environment()
    prefixes = ("PIP_", "UV_", "PYTHON", "SSL_")
    settings = {key: value for key, value in env.items() if key.startswith(prefixes)}
    settings.pop("SSL_CERT_DIR", None)
    assert settings == {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_INDEX_URL": "http://127.0.0.1:1/simple",
        "PIP_TRUSTED_HOST": "one two",
        "PIP_TIMEOUT": "3",
        "PIP_CERT": "cert.pem",
        "UV_DEFAULT_INDEX": "http://127.0.0.1:1/simple",
        "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "SSL_CERT_FILE": "cert.pem",
    }
    assert env["PATH"] == os.environ["PATH"]


def test_the_isolated_environment_has_no_pip_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env=package_index.isolated_environment(str(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split() == [
        ":env:.config-file='/dev/null'",
        ":env:.disable-pip-version-check='1'",
    ]


def test_a_tool_that_hangs_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_index, "_SECONDS", 0.1)
    with pytest.raises(StaleInput, match=r"took more than 0\.1 s\. Try again"):
        package_index.run_tool([sys.executable, "-c", "import time; time.sleep(30)"], tmp_path)


def test_the_error_summary_is_one_line_without_warnings() -> None:
    pip = "WARNING: slow\nERROR: first\nERROR: No matching distribution found for x\n"
    assert package_index.error_summary(pip) == "ERROR: No matching distribution found for x"
    uv = "warning: no Python\n  × No solution found:\n  ╰─▶ Because x\n      and y.\n"
    assert package_index.error_summary(uv) == "No solution found: Because x and y."
    assert len(package_index.error_summary("a word " * 1000)) <= 400
