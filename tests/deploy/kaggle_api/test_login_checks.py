"""Each wrong state of client, login and variables is told, and no value of a secret ever is."""

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
"""A value that no finding may hold."""


def levels(findings: list[CheckResult]) -> list[str]:
    return [finding.level for finding in findings]


def told(findings: list[CheckResult]) -> str:
    text = "\n".join(finding.line() for finding in findings)
    assert SECRET not in text
    return text


# The client


def test_the_pinned_client_is_well() -> None:
    assert levels(login_checks.client(CLIENT, six=True)) == ["ok"]


@pytest.mark.parametrize("version", ["", "2.2.4", "2.2.6"])
def test_any_other_client_is_an_error(version: str) -> None:
    (found,) = login_checks.client({**CLIENT, "kaggle": version}, six=True)
    assert (found.level, found.kind) == ("error", "configuration")
    assert found.what == f"kaggle {version or 'is not installed'}; wanted 2.2.5 exactly"
    assert found.mend == "pip install --no-deps kaggle==2.2.5"


def test_another_sdk_and_a_missing_six_are_errors() -> None:
    found = login_checks.client({**CLIENT, "kagglesdk": "0.1.37"}, six=False)
    assert levels(found) == ["error", "error"]
    assert [one.mend for one in found] == [
        "pip install --no-deps kagglesdk==0.1.38",
        "pip install six",
    ]


# The login


def keep(path: Path, text: str = SECRET, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_no_login_is_a_warning_that_says_how_to_get_one(tmp_path: Path) -> None:
    (found,) = login_checks.login({}, tmp_path)
    assert (found.level, "~/.kaggle/access_token" in found.mend) == ("warning", True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".kaggle/access_token", "~/.kaggle/access_token"),
        (".kaggle/access_token.txt", "~/.kaggle/access_token.txt"),
        (".kaggle/kaggle.json", "kaggle.json in ~/.kaggle"),
        (".config/kaggle/kaggle.json", "kaggle.json in ~/.config/kaggle"),
        (".kaggle/credentials.json", "~/.kaggle/credentials.json (OAuth)"),
    ],
)
def test_a_login_in_a_file_is_found_where_the_client_looks(
    name: str, said: str, tmp_path: Path
) -> None:
    keep(tmp_path / name)
    found = login_checks.login({}, tmp_path)
    assert found == [CheckResult("ok", f"login for Kaggle: {said}")]
    told(found)


def test_a_login_in_variables_is_found(tmp_path: Path) -> None:
    found = login_checks.login({"KAGGLE_USERNAME": "ann", "KAGGLE_KEY": SECRET}, tmp_path)
    assert told(found) == "ok       login for Kaggle: KAGGLE_USERNAME and KAGGLE_KEY"
    found = login_checks.login({"KAGGLE_API_TOKEN": SECRET}, tmp_path)
    assert told(found) == "ok       login for Kaggle: KAGGLE_API_TOKEN"
    found = login_checks.login({"KAGGLE_API_TOKEN": SECRET * 99}, tmp_path)
    assert levels(found) == ["ok"]
    path = keep(tmp_path / "token")
    found = login_checks.login({"KAGGLE_API_TOKEN": str(path)}, tmp_path)
    assert told(found) == "ok       login for Kaggle: KAGGLE_API_TOKEN (names a file)"


def test_of_several_logins_the_first_in_the_clients_order_is_named(tmp_path: Path) -> None:
    keep(tmp_path / ".kaggle" / "credentials.json")
    keep(tmp_path / ".kaggle" / "kaggle.json")
    env = {"KAGGLE_USERNAME": "ann", "KAGGLE_KEY": SECRET}
    keep(tmp_path / ".kaggle" / "access_token")
    well, several = login_checks.login(env, tmp_path)
    assert well.what == "login for Kaggle: ~/.kaggle/access_token"
    assert several.level == "warning"
    assert several.what == (
        "~/.kaggle/access_token comes before KAGGLE_USERNAME and KAGGLE_KEY, kaggle.json in "
        "~/.kaggle, ~/.kaggle/credentials.json (OAuth), which is not used while it works"
    )
    told([well, several])


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_login_that_others_can_read_is_a_warning(mode: int, tmp_path: Path) -> None:
    path = keep(tmp_path / ".kaggle" / "access_token", mode=mode)
    warning, well = login_checks.login({}, tmp_path)
    assert (warning.level, warning.mend, well.level) == ("warning", f"chmod 600 {path}", "ok")
    told([warning])


def test_an_empty_token_is_a_warning(tmp_path: Path) -> None:
    keep(tmp_path / ".kaggle" / "access_token", text="")
    warning, _ = login_checks.login({}, tmp_path)
    assert (warning.level, "empty" in warning.what) == ("warning", True)


def test_half_a_login_is_a_warning(tmp_path: Path) -> None:
    half, none = login_checks.login({"KAGGLE_KEY": SECRET}, tmp_path)
    assert (half.level, half.what) == ("warning", "KAGGLE_KEY alone is no login")
    assert half.mend == "set KAGGLE_USERNAME too, or unset KAGGLE_KEY"
    assert none.what.startswith("no login for Kaggle")
    keep(tmp_path / ".kaggle" / "kaggle.json")
    half, well = login_checks.login({"KAGGLE_USERNAME": "ann"}, tmp_path)
    assert half.what == "KAGGLE_USERNAME alone goes over that of kaggle.json"
    assert well.level == "ok"
    told([half, well])


def test_a_config_folder_that_moves_kaggle_json_alone_is_a_warning(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    keep(elsewhere / "kaggle.json")
    env = {"KAGGLE_CONFIG_DIR": str(elsewhere)}
    warning, well = login_checks.login(env, tmp_path)
    assert (warning.level, well.level) == ("warning", "ok")
    assert well.what == "login for Kaggle: kaggle.json in ~/elsewhere"
    keep(elsewhere / "access_token")
    warning, _ = login_checks.login(env, tmp_path)
    assert warning.mend == "move access_token to ~/.kaggle/"


def test_the_config_folder_is_the_clients(tmp_path: Path) -> None:
    assert login_checks.config_folder({}, tmp_path) == tmp_path / ".config" / "kaggle"
    env = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert login_checks.config_folder(env, tmp_path) == tmp_path / "xdg" / "kaggle"
    (tmp_path / ".kaggle").mkdir()
    assert login_checks.config_folder(env, tmp_path) == tmp_path / ".kaggle"


# Variables


def test_a_quiet_environment_is_well() -> None:
    quiet = {"PATH": "/bin", "HOME": "/", "HF_HOME": "/x", "PIP_NO_INPUT": "1", "PYTHONPATH": ""}
    assert levels(login_checks.environment(quiet)) == ["ok"]


@pytest.mark.parametrize("value", ["TEST", "localhost", "STAGING", "prod", SECRET])
def test_another_kaggle_than_it_seems_is_an_error(value: str) -> None:
    (found,) = login_checks.environment({"KAGGLE_API_ENVIRONMENT": value})
    assert (found.level, found.kind) == ("error", "configuration")
    assert found.mend == "unset KAGGLE_API_ENVIRONMENT"
    told([found])


def test_a_stand_in_for_kaggle_is_a_warning_and_kaggle_itself_is_well() -> None:
    assert levels(login_checks.environment({"KAGGLE_API_ENVIRONMENT": "LOCALHOST"})) == ["warning"]
    assert levels(login_checks.environment({"KAGGLE_API_ENVIRONMENT": "PROD"})) == ["ok"]


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
def test_a_variable_that_changes_things_is_named_without_its_value(name: str) -> None:
    (found,) = login_checks.environment({name: SECRET})
    assert (found.level, found.mend) == ("warning", f"unset {name}")
    assert found.what.startswith(f"{name} is set: ")
    told([found])


# Upload state


def test_no_upload_state_is_well(tmp_path: Path) -> None:
    assert levels(login_checks.uploads(tmp_path, 1000, tmp_path / "uploads")) == ["ok"]
    (tmp_path / ".kaggle-uploads-1000").mkdir()
    assert levels(login_checks.uploads(tmp_path, 1000, tmp_path / "uploads")) == ["ok"]


@pytest.mark.parametrize("name", [".kaggle-uploads-1000", ".kaggle/uploads"])
def test_state_of_the_client_that_may_be_taken_up_again_is_a_warning(
    name: str, tmp_path: Path
) -> None:
    keep(tmp_path / name / "state.json")
    (found,) = login_checks.uploads(tmp_path, 1000, tmp_path / "uploads")
    assert (found.level, found.mend) == ("warning", f"rm -r {tmp_path / name}")


def test_state_of_another_account_is_not_ours(tmp_path: Path) -> None:
    keep(tmp_path / ".kaggle-uploads-1001" / "state.json")
    assert levels(login_checks.uploads(tmp_path, 1000, tmp_path / "uploads")) == ["ok"]


def test_our_own_publish_that_was_cut_off_is_a_warning(tmp_path: Path) -> None:
    keep(tmp_path / "uploads" / "abc" / "state.json")
    (found,) = login_checks.uploads(tmp_path, 1000, tmp_path / "uploads")
    assert found.level == "warning"
    assert found.mend == f"invoke publish, or: rm -r {tmp_path / 'uploads'}/*/"


def test_a_mark_of_what_was_told_is_no_upload_state(tmp_path: Path) -> None:
    keep(tmp_path / "uploads" / "abc.mark")
    assert levels(login_checks.uploads(tmp_path, 1000, tmp_path / "uploads")) == ["ok"]


# Kaggle itself


class Competitions:
    """Answers how many submissions are left, or raises."""

    def __init__(self, answer: int | Exception) -> None:
        self.answer = answer

    def left(self, competition: str) -> int:
        assert competition == "small"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@contextmanager
def door(answer: int | Exception) -> Iterator[Any]:
    yield SimpleNamespace(user="ann", competitions=Competitions(answer))


@contextmanager
def closed(error: Exception) -> Iterator[Any]:
    raise error
    yield


def test_a_login_that_is_accepted_is_told_with_what_is_left_today() -> None:
    found = login_checks.asked(lambda: door(3), "small")
    assert [one.what for one in found] == [
        "Kaggle accepts the login of ann",
        "small: 3 submissions are left today",
    ]


def test_rules_that_were_not_accepted_are_an_error_that_says_where_to() -> None:
    *_, found = login_checks.asked(lambda: door(KaggleRejected("limits of small: 403")), "small")
    assert (found.level, found.what) == ("error", "limits of small: 403")
    assert found.mend == "accept the rules: kaggle.com/competitions/small/rules"


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (BadConfig("kaggle is 2.2.4; run: pip install kaggle"), "pip install kaggle"),
        (KaggleRejected("Kaggle refused the login"), ""),
        (OutcomeUnknown("Kaggle does not answer"), ""),
    ],
)
def test_a_door_that_does_not_open_is_an_error(error: Exception, mend: str) -> None:
    (found,) = login_checks.asked(lambda: closed(error), "small")
    assert (found.level, found.mend) == ("error", mend)
