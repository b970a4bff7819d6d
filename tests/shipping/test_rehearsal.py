"""A kernel is run as Kaggle would: laid out, alone, offline; its failure is told in one line."""

import os
import stat
import zipfile
from pathlib import Path

import pytest

from parity.run.errors import Mismatch
from parity.shipping import rehearsal

TOUCHED = 'open(os.environ["PARITY_KAGGLE"] + "/working/went-on", "w").close()\n'


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    rehearsal.lay_out(tmp_path / "kaggle", {})
    return tmp_path / "kaggle"


def run(kaggle: Path, code: str) -> str:
    kernel = kaggle.parent / "kernel.py"
    kernel.write_text(f"import os\n{code}\n{TOUCHED}")
    printed = rehearsal.run(kernel, kaggle)
    (kaggle / "working" / "went-on").unlink()
    return printed


def failure(kaggle: Path, code: str) -> str:
    """Return why a kernel failed; nothing after the fault was done."""
    with pytest.raises(Mismatch) as caught:
        run(kaggle, code)
    assert not (kaggle / "working" / "went-on").exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_file_lies_in_its_dataset_and_is_no_copy(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("w" * 9)
    (tmp_path / "link").symlink_to("weights")
    root = tmp_path / "kaggle"
    rehearsal.lay_out(
        root,
        {
            "small-base": {"model.safetensors": tmp_path / "weights", "m": tmp_path / "link"},
            "small-bundle": {},
        },
    )
    laid = root / "input" / "small-base" / "model.safetensors"
    assert laid.samefile(tmp_path / "weights")
    assert (root / "input" / "small-base" / "m").samefile(laid)
    assert not (root / "input" / "small-base" / "m").is_symlink()
    assert sorted(path.name for path in (root / "input").iterdir()) == [
        "small-base",
        "small-bundle",
    ]
    assert list((root / "working").iterdir()) == []


def test_a_disk_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "weights").write_text("w")
    rehearsal.lay_out(tmp_path / "kaggle", {"base": {"weights": tmp_path / "weights"}})
    assert (tmp_path / "kaggle" / "input" / "base" / "weights").read_text() == "w"


def test_nothing_of_an_earlier_layout_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    root = tmp_path / "kaggle"
    rehearsal.lay_out(root, {"old": {"file": tmp_path / "file"}})
    (root / "working" / "submission.csv").touch()
    rehearsal.lay_out(root, {"new": {}})
    assert [path.name for path in (root / "input").iterdir()] == ["new"]
    assert list((root / "working").iterdir()) == []
    assert (tmp_path / "file").read_text() == "mine"


def test_a_kernel_works_in_the_working_folder_and_is_told_where_kaggle_is(kaggle: Path) -> None:
    code = "import sys; print(os.getcwd(), os.environ['PARITY_KAGGLE'], sys.argv, __name__)"
    kernel = kaggle.parent / "kernel.py"
    assert run(kaggle, code) == f"{kaggle / 'working'} {kaggle} {[str(kernel)]} __main__\n"


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("socket.create_connection(('192.0.2.1', 80), 5)", "getaddrinfo '192.0.2.1'"),
        ("socket.socket().connect(('192.0.2.1', 80))", "connect ('192.0.2.1', 80)"),
        ("socket.socket().connect_ex(('192.0.2.1', 80))", "connect ('192.0.2.1', 80)"),
        ("socket.socket().connect(('127.0.0.1', 9))", "connect ('127.0.0.1', 9)"),
        (
            "socket.socket(socket.AF_INET6).connect(('::1', 9))",
            "connect ('::1', 9)",
        ),
        (
            "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
            "sendto ('192.0.2.1', 53)",
        ),
        (
            "socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('192.0.2.1', 53))",
            "sendmsg ('192.0.2.1', 53)",
        ),
        ("socket.getaddrinfo('localhost', 80)", "getaddrinfo 'localhost'"),
        ("socket.gethostbyname('kaggle.com')", "gethostbyname 'kaggle.com'"),
        ("import urllib.request; urllib.request.urlopen('http://pypi.org')", "getaddrinfo"),
        (
            "import urllib.request; urllib.request.urlopen('https://127.0.0.1:1/', timeout=5)",
            "getaddrinfo '127.0.0.1'",
        ),
    ],
)
def test_a_kernel_that_tries_the_network_fails(kaggle: Path, code: str, event: str) -> None:
    message = failure(kaggle, f"import socket\n{code}")
    told = "the kernel failed with exit code 1: the kernel tried to reach the network: socket."
    assert message.startswith(f"{told}{event}")


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    {}\nexcept BaseException:\n    pass",
        "import threading\none = threading.Thread(target=lambda: {})\none.start()\none.join()",
    ],
    ids=["caught", "in a thread"],
)
def test_a_try_that_would_go_unnoticed_ends_the_kernel_too(kaggle: Path, code: str) -> None:
    code = code.format("socket.create_connection(('192.0.2.1', 80))")
    assert "tried to reach the network" in failure(kaggle, f"import socket\n{code}")


def test_sockets_within_the_machine_are_no_network(kaggle: Path) -> None:
    code = """
import socket
one, other = socket.socketpair()
one.sendall(b"x"); one.sendmsg([b"y"])
server = socket.socket(socket.AF_UNIX); server.bind("here"); server.listen()
socket.socket(socket.AF_UNIX).connect("here")
print(other.recv(2))
"""
    assert run(kaggle, code) == "b'xy'\n"


@pytest.mark.skipif(not rehearsal._namespace(), reason="this machine refuses network namespaces")
def test_a_process_started_by_the_kernel_is_offline_too(kaggle: Path) -> None:
    code = """
import subprocess, sys
child = "import socket; print([name for _, name in socket.if_nameindex()], end=' ');"
child += "print(socket.socket().connect_ex(('127.0.0.1', 9)))"
print(subprocess.check_output([sys.executable, "-I", "-c", child], text=True))
"""
    interfaces, _, code = run(kaggle, code).strip().rpartition(" ")
    assert interfaces == "['lo']"
    assert int(code) > 0


def test_without_namespaces_the_hook_is_enough(
    kaggle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(kaggle))
    assert rehearsal._namespace() == []
    unable = kaggle / "unshare"
    unable.write_text("#!/bin/sh\nexit 1\n")
    unable.chmod(unable.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{kaggle}:/usr/bin:/bin")
    assert rehearsal._namespace() == []
    message = failure(kaggle, "import socket\nsocket.socket().connect(('192.0.2.1', 80))")
    assert message.endswith("tried to reach the network: socket.connect ('192.0.2.1', 80)")


def test_a_kernel_does_not_see_the_pythonpath_or_the_users_packages(
    kaggle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "only_here.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mine"))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "mine" / "only_here.py"))
    code = "import sys, site; print(sys.flags.isolated, site.ENABLE_USER_SITE)"
    assert run(kaggle, code) == "1 False\n"
    assert failure(kaggle, "import only_here").endswith("No module named 'only_here'")
    (kaggle / "working" / "beside.py").write_text("")
    assert failure(kaggle, "import beside").endswith("No module named 'beside'")


def test_the_project_comes_from_its_wheel_and_not_from_the_checkout(kaggle: Path) -> None:
    assert failure(kaggle, "import parity").endswith("No module named 'parity'")
    with zipfile.ZipFile(kaggle / "input.whl", "w") as wheel:
        wheel.writestr("parity/__init__.py", "")
    code = f"import sys; sys.path.insert(0, {str(kaggle / 'input.whl')!r})"
    code += "; import parity, numpy; print(parity.__file__)"
    assert run(kaggle, code) == f"{kaggle / 'input.whl'}/parity/__init__.py\n"


def test_no_key_and_no_home_reaches_the_kernel(
    kaggle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle" / "kaggle.json").write_text('{"key": "secret"}')
    monkeypatch.setenv("HOME", str(home))
    secret = ("KAGGLE_KEY", "KAGGLE_USERNAME", "KAGGLE_API_TOKEN", "HF_TOKEN", "WANDB_API_KEY")
    places = ("HF_HOME", "XDG_CACHE_HOME", "KAGGLE_CONFIG_DIR", "PARITY_DATA", "CI_TOKEN")
    for name in (*secret, *places):
        monkeypatch.setenv(name, str(home))
    code = "print(*sorted(os.environ)); print(os.path.expanduser('~'), *os.environ.values())"
    names, values = run(kaggle, code).splitlines()
    allowed = {"HOME", "HF_HUB_OFFLINE", "PARITY_KAGGLE", "LC_CTYPE", "PWD", *rehearsal._KEPT}
    assert set(names.split()) <= allowed
    assert values.split()[0] == str(kaggle)
    assert str(home) not in values


def test_threads_are_those_of_the_local_run(kaggle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run(kaggle, "print(os.environ['OMP_NUM_THREADS'])") == "3\n"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise ValueError('no such\\nlayer texts')", "exit code 1: layer texts"),
        ("raise SystemExit('want one bundle')", "exit code 1: want one bundle"),
        ("print('half'); os._exit(9)", "exit code 9: no word of why"),
        ("os.abort()", "exit code -6: no word of why"),
        ("def", "exit code 1: SyntaxError: invalid syntax"),
    ],
)
def test_a_failing_kernels_last_line_is_told(kaggle: Path, code: str, told: str) -> None:
    assert failure(kaggle, code) == f"the kernel failed with {told}"


def test_a_kernel_may_print_much_on_either_side(kaggle: Path) -> None:
    code = """
import sys
for _ in range(3000):
    print("x" * 99)
    print("noise " * 20, file=sys.stderr)
"""
    assert run(kaggle, code) == ("x" * 99 + "\n") * 3000


def test_what_a_kernel_prints_is_returned_and_its_warnings_are_not(kaggle: Path) -> None:
    assert run(kaggle, "import sys; print('é', 1); print('noise', file=sys.stderr)") == "é 1\n"
