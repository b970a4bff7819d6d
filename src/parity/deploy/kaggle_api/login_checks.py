"""What `doctor` says of the Kaggle client, the login, and variables that change what commands do.

A login is looked for, never read: no value of a key, a token or a proxy is kept or shown.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from parity.deploy.image.image_checks import CheckResult, failed
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.session import CLIENT, ENVIRONMENTS
from parity.run.errors import ParityError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_TOKEN_FILES = ("access_token", "access_token.txt")
_HALVES = ("KAGGLE_USERNAME", "KAGGLE_KEY")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_PLACES = {"PIP_CACHE_DIR", "PIP_NO_CACHE_DIR", "UV_CACHE_DIR", "HF_HOME", "HF_HUB_CACHE"}
"""Where things are kept, which changes nothing that is installed or loaded."""
_HARMLESS = {
    *_PLACES,
    *("PIP_DISABLE_PIP_VERSION_CHECK", "PIP_NO_INPUT", "PIP_PROGRESS_BAR", "PIP_ROOT_USER_ACTION"),
    *("PIP_DEFAULT_TIMEOUT", "PIP_TIMEOUT", "PIP_RETRIES", "UV_HTTP_TIMEOUT"),
    *("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_TOKEN"),
}
_TRAPS = {
    "KAGGLE_PROXY": "the Kaggle client goes through it",
    "KAGGLE_PATH": "the Kaggle client writes there",
    "KAGGLE_COMPETITION": "the Kaggle client takes it where no competition is named",
    "VERBOSE": "makes the Kaggle client log every request",
    "VERBOSE_OUTPUT": "makes the Kaggle client log every request",
    "PYTHONPATH": "puts other code before what is installed",
    "PYTHONHOME": "makes Python load another standard library",
    "PYTHONOPTIMIZE": "leaves out assertions",
    "TRANSFORMERS_OFFLINE": "a base named by its hub id is not downloaded",
    "CUDA_VISIBLE_DEVICES": "hides GPUs, or puts them in another order",
    "REQUESTS_CA_BUNDLE": "other certificates are trusted",
    "CURL_CA_BUNDLE": "other certificates are trusted",
    "SSL_CERT_FILE": "other certificates are trusted",
}
"""Variables that change what a command does, without a word, and how."""
_PREFIXES = {
    "PIP_": "changes what pip installs, and from where",
    "UV_": "changes what uv installs, and from where",
    "HF_": "changes where weights come from",
}


def client(installed: Mapping[str, str], *, six: bool) -> list[CheckResult]:
    """Compare the Kaggle client with the one version that is driven here.

    Args:
        installed: name → version, empty where it is not installed.
        six: whether it can be imported; the client needs it and does not say so.
    """
    found = []
    for name, wanted in CLIENT.items():
        here = installed.get(name, "")
        if here != wanted:
            what = f"{name} {here or 'is not installed'}; wanted {wanted} exactly"
            found.append(CheckResult("error", what, f"pip install --no-deps {name}=={wanted}"))
    if not six:
        what = "six is missing: the Kaggle client imports it without asking for it"
        found.append(CheckResult("error", what, "pip install six"))
    told = ", ".join(f"{name} {version}" for name, version in CLIENT.items())
    return found or [CheckResult("ok", f"Kaggle client: {told}, six")]


def login(env: Mapping[str, str], home: Path) -> list[CheckResult]:
    """Say where the client will find its login, in its own order, and who else may read it.

    Args:
        env: the environment.
        home: the person's home, where tokens lie whatever KAGGLE_CONFIG_DIR says.

    Source:
        kagglesdk 0.1.38 kaggle_env.py; kaggle 2.2.5 kaggle_api_extended.py, `authenticate`.
    """
    places = list(_logins(env, home))
    found = [one for _, path in places if path for one in _kept(path)]
    found += _traps_of_login(env, home)
    if not places:
        mend = "save an API token as ~/.kaggle/access_token (chmod 600); see kaggle.com/settings"
        return [*found, CheckResult("warning", "no login for Kaggle: only local stages work", mend)]
    first, *others = (what for what, _ in places)
    found.append(CheckResult("ok", f"login for Kaggle: {first}"))
    if others:
        what = f"{first} comes before {', '.join(others)}, which is not used while it works"
        found.append(CheckResult("warning", what, "keep one login"))
    return found


def _logins(env: Mapping[str, str], home: Path) -> Iterator[tuple[str, Path | None]]:
    """Yield what there is to log in with, in the client's order, and the file it lies in."""
    if named := env.get("KAGGLE_API_TOKEN"):
        path = _path(named)
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
    """Return the folder in which the client looks for kaggle.json, and for nothing else."""
    if named := env.get("KAGGLE_CONFIG_DIR"):
        return Path(named)
    if (home / ".kaggle").exists():
        return home / ".kaggle"
    return Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"


def _kept(path: Path) -> Iterator[CheckResult]:
    if not path.is_file() or path.stat().st_size == 0:
        yield CheckResult(
            "warning", f"{path.name} is empty or no file: it is passed over", f"rm {path}"
        )
    elif path.stat().st_mode & _OTHERS:
        yield CheckResult("warning", f"{path.name} can be read by others", f"chmod 600 {path}")


def _traps_of_login(env: Mapping[str, str], home: Path) -> Iterator[CheckResult]:
    halves = [name for name in _HALVES if env.get(name)]
    kept = (config_folder(env, home) / "kaggle.json").exists()
    if len(halves) == 1:
        (other,) = (name for name in _HALVES if name not in halves)
        with_ = "goes over that of kaggle.json" if kept else "is no login"
        mend = f"set {other} too, or unset {halves[0]}"
        yield CheckResult("warning", f"{halves[0]} alone {with_}", mend)
    if named := env.get("KAGGLE_CONFIG_DIR"):
        strays = [
            name for name in (*_TOKEN_FILES, "credentials.json") if (Path(named) / name).exists()
        ]
        what = "KAGGLE_CONFIG_DIR moves kaggle.json alone; tokens are read from the home"
        mend = (
            f"move {strays[0]} to ~/.kaggle/" if strays else "unset it, or keep kaggle.json there"
        )
        yield CheckResult("warning", what, mend)


def environment(env: Mapping[str, str]) -> list[CheckResult]:
    """Name every variable that changes, without a word, what commands do; no value is shown."""
    traps = [(name, _trap(name, env[name])) for name in sorted(env)]
    found = [
        *_api(env),
        *(
            CheckResult("warning", f"{name} is set: {why}", f"unset {name}")
            for name, why in traps
            if why
        ),
    ]
    return found or [CheckResult("ok", "no variable that changes what commands do")]


def _api(env: Mapping[str, str]) -> Iterator[CheckResult]:
    named = env.get("KAGGLE_API_ENVIRONMENT", "")
    if named not in ENVIRONMENTS:
        what = "KAGGLE_API_ENVIRONMENT is neither LOCALHOST nor PROD: that silently means Kaggle"
        yield CheckResult("error", what, "unset KAGGLE_API_ENVIRONMENT")
    elif named == "LOCALHOST":
        what = "KAGGLE_API_ENVIRONMENT=LOCALHOST: the client talks to a stand-in, not to Kaggle"
        yield CheckResult("warning", what, "unset KAGGLE_API_ENVIRONMENT")


def _trap(name: str, value: str) -> str:
    """Return how a variable changes what commands do; empty where it does not."""
    if not value or name in _HARMLESS:
        return ""
    if name.lower() in _PROXIES:
        return "downloads and the Kaggle client go through a proxy"
    if name in _TRAPS:
        return _TRAPS[name]
    return next((why for prefix, why in _PREFIXES.items() if name.startswith(prefix)), "")


def uploads(scratch: Path, user: int, own: Path) -> list[CheckResult]:
    """Look for upload state that a later upload could take up again.

    Args:
        scratch: the machine's temporary folder.
        user: number of the account on this machine.
        own: this project's upload state, a folder for each content; its marks have to stay.
    """
    found = []
    for folder in (scratch / f".kaggle-uploads-{user}", scratch / ".kaggle" / "uploads"):
        if folder.is_dir() and any(folder.iterdir()):
            what = f"upload state of the Kaggle client in {folder}: it can mix two builds in a file"
            found.append(CheckResult("warning", what, f"rm -r {folder}", "local"))
    if own.is_dir() and (begun := [path for path in own.iterdir() if path.is_dir()]):
        what = f"{len(begun)} uploads were begun and not ended; they go on when published again"
        found.append(CheckResult("warning", what, f"invoke publish, or: rm -r {own}/*/", "local"))
    return found or [CheckResult("ok", "no upload state of an earlier publish")]


def asked(
    opened: Callable[[], AbstractContextManager[KaggleClient]], competition: str
) -> list[CheckResult]:
    """Ask Kaggle whether it accepts the login, and whether the competition's rules are accepted.

    Args:
        opened: opens the door.
        competition: its slug.
    """
    found = []
    try:
        with opened() as door:
            found.append(CheckResult("ok", f"Kaggle accepts the login of {door.user}"))
            left = door.competitions.left(competition)
            found.append(CheckResult("ok", f"{competition}: {left} submissions are left today"))
    except ParityError as error:
        said = failed(error)
        rules = f"accept the rules: kaggle.com/competitions/{competition}/rules"
        mend = said.mend or rules * bool(found)
        found.append(CheckResult("error", said.what, mend, said.kind))
    return found


def _path(value: str) -> Path | None:
    """Return the file that a value names, where it names one; a token is none."""
    try:
        return Path(value) if Path(value).exists() else None
    except OSError:  # longer than a name can be
        return None


def _shown(folder: Path, home: Path) -> str:
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else os.fspath(folder)
