"""The `doctor` checks of the Kaggle client, the login, and environment variables.

The checks look for a login but never read it: no key, token or proxy address is stored or printed.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from parity.deploy.image.image_checks import CheckResult, error_result
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.session import CLIENT, ENVIRONMENTS
from parity.run.errors import ParityError

_SHARED = stat.S_IRWXG | stat.S_IRWXO
_TOKEN_FILES = ("access_token", "access_token.txt")
_HALVES = ("KAGGLE_USERNAME", "KAGGLE_KEY")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_CACHES = {"PIP_CACHE_DIR", "PIP_NO_CACHE_DIR", "UV_CACHE_DIR", "HF_HOME", "HF_HUB_CACHE"}
"""Variables that move caches, which changes nothing that is installed or loaded."""
_HARMLESS = {
    *_CACHES,
    *("PIP_DISABLE_PIP_VERSION_CHECK", "PIP_NO_INPUT", "PIP_PROGRESS_BAR", "PIP_ROOT_USER_ACTION"),
    *("PIP_DEFAULT_TIMEOUT", "PIP_TIMEOUT", "PIP_RETRIES", "UV_HTTP_TIMEOUT"),
    *("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_TOKEN"),
}
_TRAPS = {
    "KAGGLE_PROXY": "the Kaggle client goes through it",
    "KAGGLE_PATH": "the Kaggle client writes there",
    "KAGGLE_COMPETITION": "the Kaggle client uses it if no competition is named",
    "VERBOSE": "makes the Kaggle client log every request",
    "VERBOSE_OUTPUT": "makes the Kaggle client log every request",
    "PYTHONPATH": "puts other code before the installed packages",
    "PYTHONHOME": "makes Python load another standard library",
    "PYTHONOPTIMIZE": "disables assertions",
    "TRANSFORMERS_OFFLINE": "a base model named by its hub id is not downloaded",
    "CUDA_VISIBLE_DEVICES": "hides or reorders GPUs",
    "REQUESTS_CA_BUNDLE": "other certificates are trusted",
    "CURL_CA_BUNDLE": "other certificates are trusted",
    "SSL_CERT_FILE": "other certificates are trusted",
}
"""Variables that silently change what a command does, and how."""
_PREFIXES = {
    "PIP_": "changes what pip installs, and from where",
    "UV_": "changes what uv installs, and from where",
    "HF_": "changes where weights come from",
}


def check_client_versions(installed: Mapping[str, str], *, six: bool) -> list[CheckResult]:
    """Compare the installed Kaggle client with the pinned version.

    Args:
        installed: package name → version, empty if not installed.
        six: whether `six` can be imported; the client needs it but does not declare it.
    """
    results = []
    for name, pinned in CLIENT.items():
        actual = installed.get(name, "")
        if actual != pinned:
            message = f"{name} must be {pinned} but is {actual or 'not installed'}"
            results.append(CheckResult("error", message, f"pip install --no-deps {name}=={pinned}"))
    if not six:
        message = "six is missing: the Kaggle client imports it without declaring it"
        results.append(CheckResult("error", message, "pip install six"))
    versions = ", ".join(f"{name} {version}" for name, version in CLIENT.items())
    return results or [CheckResult("ok", f"Kaggle client: {versions}, six")]


def check_login(env: Mapping[str, str], home: Path) -> list[CheckResult]:
    """Report which login the client uses, in the client's order, and who else can read it.

    Args:
        env: the environment.
        home: the user's home folder; tokens are there even if KAGGLE_CONFIG_DIR is set.

    Source:
        kagglesdk 0.1.38 kaggle_env.py; kaggle 2.2.5 kaggle_api_extended.py, `authenticate`.
    """
    logins = list(_logins(env, home))
    results = [result for _, path in logins if path for result in _check_file(path)]
    results += _login_traps(env, home)
    if not logins:
        fix = "save an API token as ~/.kaggle/access_token (chmod 600); see kaggle.com/settings"
        return [*results, CheckResult("warning", "no Kaggle login: only local stages work", fix)]
    first, *unused = (name for name, _ in logins)
    results.append(CheckResult("ok", f"Kaggle login: {first}"))
    if unused:
        message = f"{first} takes precedence over {', '.join(unused)}"
        results.append(CheckResult("warning", message, "keep one login"))
    return results


def _logins(env: Mapping[str, str], home: Path) -> Iterator[tuple[str, Path | None]]:
    """Yield name and file of each login, in the client's order."""
    if token := env.get("KAGGLE_API_TOKEN"):
        path = _path(token)
        yield "KAGGLE_API_TOKEN" + (" (names a file)" if path else ""), path
    for name in _TOKEN_FILES:
        if (home / ".kaggle" / name).exists():
            yield f"~/.kaggle/{name}", home / ".kaggle" / name
    if all(env.get(name) for name in _HALVES):
        yield " and ".join(_HALVES), None
    if (path := config_folder(env, home) / "kaggle.json").exists():
        yield f"kaggle.json in {_shown(path.parent, home)}", path
    if (path := home / ".kaggle" / "credentials.json").exists():
        yield "~/.kaggle/credentials.json (OAuth)", path


def config_folder(env: Mapping[str, str], home: Path) -> Path:
    """Return the folder in which the client looks for kaggle.json, and only for that file."""
    if folder := env.get("KAGGLE_CONFIG_DIR"):
        return Path(folder)
    if (home / ".kaggle").exists():
        return home / ".kaggle"
    return Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"


def _check_file(path: Path) -> Iterator[CheckResult]:
    if not path.is_file() or path.stat().st_size == 0:
        yield CheckResult(
            "warning", f"{path.name} is empty or not a file, so it is ignored", f"rm {path}"
        )
    elif path.stat().st_mode & _SHARED:
        yield CheckResult("warning", f"{path.name} is readable by other users", f"chmod 600 {path}")


def _login_traps(env: Mapping[str, str], home: Path) -> Iterator[CheckResult]:
    halves = [name for name in _HALVES if env.get(name)]
    has_file = (config_folder(env, home) / "kaggle.json").exists()
    if len(halves) == 1:
        (missing,) = (name for name in _HALVES if name not in halves)
        effect = "overrides the one in kaggle.json" if has_file else "is not enough to log in"
        fix = f"set {missing} too, or unset {halves[0]}"
        yield CheckResult("warning", f"{halves[0]} without {missing} {effect}", fix)
    if folder := env.get("KAGGLE_CONFIG_DIR"):
        strays = [
            name for name in (*_TOKEN_FILES, "credentials.json") if (Path(folder) / name).exists()
        ]
        message = "KAGGLE_CONFIG_DIR moves only kaggle.json; tokens are read from ~/.kaggle"
        fix = f"move {strays[0]} to ~/.kaggle/" if strays else "unset it, or use kaggle.json"
        yield CheckResult("warning", message, fix)


def check_environment(env: Mapping[str, str]) -> list[CheckResult]:
    """List every variable that silently changes what commands do, without its value."""
    traps = [(name, _trap(name, env[name])) for name in sorted(env)]
    results = [
        *_check_server(env),
        *(
            CheckResult("warning", f"{name} is set: {effect}", f"unset {name}")
            for name, effect in traps
            if effect
        ),
    ]
    return results or [CheckResult("ok", "no environment variable changes what commands do")]


def _check_server(env: Mapping[str, str]) -> Iterator[CheckResult]:
    server = env.get("KAGGLE_API_ENVIRONMENT", "")
    if server not in ENVIRONMENTS:
        message = "KAGGLE_API_ENVIRONMENT is not LOCALHOST or PROD: it silently selects production"
        yield CheckResult("error", message, "unset KAGGLE_API_ENVIRONMENT")
    elif server == "LOCALHOST":
        message = "KAGGLE_API_ENVIRONMENT=LOCALHOST: the client talks to a stand-in, not to Kaggle"
        yield CheckResult("warning", message, "unset KAGGLE_API_ENVIRONMENT")


def _trap(name: str, value: str) -> str:
    """Return how a variable changes what commands do, empty if it does not."""
    if not value or name in _HARMLESS:
        return ""
    if name.lower() in _PROXIES:
        return "downloads and the Kaggle client go through a proxy"
    if name in _TRAPS:
        return _TRAPS[name]
    return next((effect for prefix, effect in _PREFIXES.items() if name.startswith(prefix)), "")


def check_upload_state(scratch: Path, user: int, uploads: Path) -> list[CheckResult]:
    """Look for upload state that a later upload could resume.

    Args:
        scratch: the machine's temporary folder.
        user: number of the account on this machine.
        uploads: this project's upload state, one folder per content, and mark files, which must
            not be removed.
    """
    results = []
    for folder in (scratch / f".kaggle-uploads-{user}", scratch / ".kaggle" / "uploads"):
        if folder.is_dir() and any(folder.iterdir()):
            message = f"upload state of the Kaggle client in {folder} can mix two builds in a file"
            results.append(CheckResult("warning", message, f"rm -r {folder}", "local"))
    if uploads.is_dir() and (unfinished := [path for path in uploads.iterdir() if path.is_dir()]):
        message = f"{len(unfinished)} unfinished uploads in {uploads}, which publish resumes"
        results.append(CheckResult("warning", message, ("publish",), "local"))
    return results or [CheckResult("ok", "no upload state of an earlier publish")]


def check_access(
    opened: Callable[[], AbstractContextManager[KaggleClient]], competition: str
) -> list[CheckResult]:
    """Check on Kaggle that the login works and that the competition's rules are accepted.

    Args:
        opened: opens the Kaggle client.
        competition: competition slug.
    """
    results = []
    try:
        with opened() as client:
            results.append(CheckResult("ok", f"Kaggle accepts the login of {client.user}"))
            count = client.competitions.submissions_left(competition)
            results.append(CheckResult("ok", f"{competition}: {count} submissions left today"))
    except ParityError as error:
        failure = error_result(error)
        rules = f"accept the rules: kaggle.com/competitions/{competition}/rules"
        fix = failure.fix or rules * bool(results)
        results.append(CheckResult("error", failure.message, fix, failure.kind))
    return results


def _path(value: str) -> Path | None:
    """Return the file that a value names, None if the value is a token."""
    try:
        return Path(value) if Path(value).exists() else None
    except OSError:  # too long for a file name
        return None


def _shown(folder: Path, home: Path) -> str:
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else os.fspath(folder)
