"""Every wrong state of client, login and variables is reported, and no secret is printed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from parity.deploy.image.image_checks import CheckResult
from parity.deploy.kaggle_api import login_checks
from parity.deploy.kaggle_api.session import CLIENT
from parity.run.errors import BadConfig, KaggleRejected, OutcomeUnknown

SECRET = "s3" * 8
"""A value that no result may contain."""


def levels(results: list[CheckResult]) -> list[str]:
    return [result.level for result in results]


def text_of(results: list[CheckResult]) -> str:
    text = "\n".join(result.line() for result in results)
    assert SECRET not in text
    return text


# The client


def test_the_pinned_client_is_ok() -> None:
    assert levels(login_checks.check_client_versions(CLIENT, six=True)) == ["ok"]


@pytest.mark.parametrize("version", ["", "2.2.4", "2.2.6"])
def test_any_other_client_is_an_error(version: str) -> None:
    (result,) = login_checks.check_client_versions({**CLIENT, "kaggle": version}, six=True)
    assert (result.level, result.kind) == ("error", "configuration")
    assert result.message == f"kaggle must be 2.2.5 but is {version or 'not installed'}"
    assert result.fix == "pip install --no-deps kaggle==2.2.5"


def test_another_sdk_and_a_missing_six_are_errors() -> None:
    results = login_checks.check_client_versions({**CLIENT, "kagglesdk": "0.1.37"}, six=False)
    assert levels(results) == ["error", "error"]
    assert [result.fix for result in results] == [
        "pip install --no-deps kagglesdk==0.1.38",
        "pip install six",
    ]


# The login


def save(path: Path, text: str = SECRET, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_missing_login_is_a_warning_with_instructions(tmp_path: Path) -> None:
    (result,) = login_checks.check_login({}, tmp_path)
    assert (result.level, "~/.kaggle/access_token" in result.fix) == ("warning", True)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (".kaggle/access_token", "~/.kaggle/access_token"),
        (".kaggle/access_token.txt", "~/.kaggle/access_token.txt"),
        (".kaggle/kaggle.json", "kaggle.json in ~/.kaggle"),
        (".config/kaggle/kaggle.json", "kaggle.json in ~/.config/kaggle"),
        (".kaggle/credentials.json", "~/.kaggle/credentials.json (OAuth)"),
    ],
)
def test_a_login_in_a_file_is_found_where_the_client_looks(
    path: str, name: str, tmp_path: Path
) -> None:
    save(tmp_path / path)
    results = login_checks.check_login({}, tmp_path)
    assert results == [CheckResult("ok", f"Kaggle login: {name}")]
    text_of(results)


def test_a_login_in_variables_is_found(tmp_path: Path) -> None:
    results = login_checks.check_login({"KAGGLE_USERNAME": "ann", "KAGGLE_KEY": SECRET}, tmp_path)
    assert text_of(results) == "ok       Kaggle login: KAGGLE_USERNAME and KAGGLE_KEY"
    results = login_checks.check_login({"KAGGLE_API_TOKEN": SECRET}, tmp_path)
    assert text_of(results) == "ok       Kaggle login: KAGGLE_API_TOKEN"
    results = login_checks.check_login({"KAGGLE_API_TOKEN": SECRET * 99}, tmp_path)
    assert levels(results) == ["ok"]
    path = save(tmp_path / "token")
    results = login_checks.check_login({"KAGGLE_API_TOKEN": str(path)}, tmp_path)
    assert text_of(results) == "ok       Kaggle login: KAGGLE_API_TOKEN (names a file)"


def test_the_first_of_several_logins_is_reported(tmp_path: Path) -> None:
    save(tmp_path / ".kaggle" / "credentials.json")
    save(tmp_path / ".kaggle" / "kaggle.json")
    env = {"KAGGLE_USERNAME": "ann", "KAGGLE_KEY": SECRET}
    save(tmp_path / ".kaggle" / "access_token")
    first, several = login_checks.check_login(env, tmp_path)
    assert first.message == "Kaggle login: ~/.kaggle/access_token"
    assert several.level == "warning"
    assert several.message == (
        "~/.kaggle/access_token takes precedence over KAGGLE_USERNAME and KAGGLE_KEY, "
        "kaggle.json in ~/.kaggle, ~/.kaggle/credentials.json (OAuth)"
    )
    text_of([first, several])


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_login_that_others_can_read_is_a_warning(mode: int, tmp_path: Path) -> None:
    path = save(tmp_path / ".kaggle" / "access_token", mode=mode)
    warning, login = login_checks.check_login({}, tmp_path)
    assert (warning.level, warning.fix, login.level) == ("warning", f"chmod 600 {path}", "ok")
    text_of([warning])


def test_an_empty_token_is_a_warning(tmp_path: Path) -> None:
    save(tmp_path / ".kaggle" / "access_token", text="")
    warning, _ = login_checks.check_login({}, tmp_path)
    assert (warning.level, "empty" in warning.message) == ("warning", True)


def test_half_a_login_is_a_warning(tmp_path: Path) -> None:
    half, missing = login_checks.check_login({"KAGGLE_KEY": SECRET}, tmp_path)
    assert (half.level, half.message) == (
        "warning",
        "KAGGLE_KEY without KAGGLE_USERNAME is not enough to log in",
    )
    assert half.fix == "set KAGGLE_USERNAME too, or unset KAGGLE_KEY"
    assert missing.message.startswith("no Kaggle login")
    save(tmp_path / ".kaggle" / "kaggle.json")
    half, login = login_checks.check_login({"KAGGLE_USERNAME": "ann"}, tmp_path)
    assert half.message == "KAGGLE_USERNAME without KAGGLE_KEY overrides the one in kaggle.json"
    assert login.level == "ok"
    text_of([half, login])


def test_a_config_folder_that_moves_only_kaggle_json_is_a_warning(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    save(elsewhere / "kaggle.json")
    env = {"KAGGLE_CONFIG_DIR": str(elsewhere)}
    warning, login = login_checks.check_login(env, tmp_path)
    assert (warning.level, login.level) == ("warning", "ok")
    assert login.message == "Kaggle login: kaggle.json in ~/elsewhere"
    save(elsewhere / "access_token")
    warning, _ = login_checks.check_login(env, tmp_path)
    assert warning.fix == "move access_token to ~/.kaggle/"


def test_the_config_folder_is_the_clients(tmp_path: Path) -> None:
    assert login_checks.config_folder({}, tmp_path) == tmp_path / ".config" / "kaggle"
    env = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert login_checks.config_folder(env, tmp_path) == tmp_path / "xdg" / "kaggle"
    (tmp_path / ".kaggle").mkdir()
    assert login_checks.config_folder(env, tmp_path) == tmp_path / ".kaggle"


# Variables


def test_an_environment_without_traps_is_ok() -> None:
    env = {"PATH": "/bin", "HOME": "/", "HF_HOME": "/x", "PIP_NO_INPUT": "1", "PYTHONPATH": ""}
    assert levels(login_checks.check_environment(env)) == ["ok"]


@pytest.mark.parametrize("value", ["TEST", "localhost", "STAGING", "prod", SECRET])
def test_a_misleading_server_is_an_error(value: str) -> None:
    (result,) = login_checks.check_environment({"KAGGLE_API_ENVIRONMENT": value})
    assert (result.level, result.kind) == ("error", "configuration")
    assert result.fix == "unset KAGGLE_API_ENVIRONMENT"
    text_of([result])


def test_a_stand_in_for_kaggle_is_a_warning_and_production_is_ok() -> None:
    assert levels(login_checks.check_environment({"KAGGLE_API_ENVIRONMENT": "LOCALHOST"})) == [
        "warning"
    ]
    assert levels(login_checks.check_environment({"KAGGLE_API_ENVIRONMENT": "PROD"})) == ["ok"]


@pytest.mark.parametrize(
    "name",
    [
        *("http_proxy", "HTTPS_PROXY", "ALL_PROXY"),
        *("KAGGLE_PROXY", "KAGGLE_COMPETITION", "KAGGLE_PATH", "VERBOSE"),
        *("PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT", "UV_INDEX_URL", "UV_FIND_LINKS"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONOPTIMIZE"),
        *("HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
        *("CUDA_VISIBLE_DEVICES", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"),
    ],
)
def test_a_variable_with_an_effect_is_reported_without_its_value(name: str) -> None:
    (result,) = login_checks.check_environment({name: SECRET})
    assert (result.level, result.fix) == ("warning", f"unset {name}")
    assert result.message.startswith(f"{name} is set: ")
    text_of([result])


# Upload state


def test_no_upload_state_is_ok(tmp_path: Path) -> None:
    assert levels(login_checks.check_upload_state(tmp_path, 1000, tmp_path / "uploads")) == ["ok"]
    (tmp_path / ".kaggle-uploads-1000").mkdir()
    assert levels(login_checks.check_upload_state(tmp_path, 1000, tmp_path / "uploads")) == ["ok"]


@pytest.mark.parametrize("name", [".kaggle-uploads-1000", ".kaggle/uploads"])
def test_client_state_that_may_be_resumed_is_a_warning(name: str, tmp_path: Path) -> None:
    save(tmp_path / name / "state.json")
    (result,) = login_checks.check_upload_state(tmp_path, 1000, tmp_path / "uploads")
    assert (result.level, result.fix) == ("warning", f"rm -r {tmp_path / name}")


def test_state_of_another_account_is_ignored(tmp_path: Path) -> None:
    save(tmp_path / ".kaggle-uploads-1001" / "state.json")
    assert levels(login_checks.check_upload_state(tmp_path, 1000, tmp_path / "uploads")) == ["ok"]


def test_an_interrupted_publish_is_a_warning(tmp_path: Path) -> None:
    save(tmp_path / "uploads" / "abc" / "state.json")
    (result,) = login_checks.check_upload_state(tmp_path, 1000, tmp_path / "uploads")
    assert result.level == "warning"
    assert result.fix == ("publish",)


def test_a_mark_file_is_not_upload_state(tmp_path: Path) -> None:
    save(tmp_path / "uploads" / "abc.mark")
    assert levels(login_checks.check_upload_state(tmp_path, 1000, tmp_path / "uploads")) == ["ok"]


# Access


class Competitions:
    """Returns how many submissions are left, or raises."""

    def __init__(self, reply: int | Exception) -> None:
        self.reply = reply

    def submissions_left(self, competition: str) -> int:
        assert competition == "small"
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


@contextmanager
def fake_client(reply: int | Exception) -> Iterator[Any]:
    yield SimpleNamespace(user="ann", competitions=Competitions(reply))


@contextmanager
def failing_client(error: Exception) -> Iterator[Any]:
    raise error
    yield


def test_an_accepted_login_is_reported_with_the_submissions_left() -> None:
    results = login_checks.check_access(lambda: fake_client(3), "small")
    assert [result.message for result in results] == [
        "Kaggle accepts the login of ann",
        "small: 3 submissions left today",
    ]


def test_rules_that_are_not_accepted_are_an_error_with_the_page() -> None:
    *_, result = login_checks.check_access(
        lambda: fake_client(KaggleRejected("limits of small: 403")), "small"
    )
    assert (result.level, result.message) == ("error", "limits of small: 403")
    assert result.fix == "accept the rules: kaggle.com/competitions/small/rules"


@pytest.mark.parametrize(
    "error",
    [
        BadConfig("kaggle must be 2.2.5 but is 2.2.4"),
        KaggleRejected("Kaggle refused the login"),
        OutcomeUnknown("Kaggle does not respond"),
    ],
)
def test_a_client_that_does_not_open_is_an_error(error: Exception) -> None:
    (result,) = login_checks.check_access(lambda: failing_client(error), "small")
    assert (result.level, result.message, result.fix) == ("error", str(error), "")
