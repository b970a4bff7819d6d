"""Each kind of sandbox keeps a kernel offline, with a read-only input."""

import os
import pwd
import shutil
import sys
from pathlib import Path

import pytest

from parity.deploy.kernel import mounts, rehearsal, sandbox
from parity.deploy.kernel.sandbox import Sandbox
from parity.run.errors import Mismatch

WAYS = {
    "sandbox": (("bwrap",), "file system and network of its own"),
    "namespace": (("unshare",), "network of its own and guard"),
    "guard": ((), "guard"),
}
"""Programs that a kind of sandbox needs, and its name, by kind."""
HEAD = "import os\nKAGGLE = os.environ.get('PARITY_KAGGLE', '/kaggle')\n"
WENT_ON = "\nopen(KAGGLE + '/working/went-on', 'w').close()\n"


class Kernel:
    """A laid-out folder and the sandbox of its kernels."""

    def __init__(self, root: Path, hidden: Path) -> None:
        self.root, self.hidden = root, hidden
        self.script = root.parent / "kernel.py"
        self.script.touch()
        self.way = self.apart()

    def apart(self, threads: int = 0) -> Sandbox:
        return sandbox.isolated(self.script, self.root, hidden=[self.hidden], threads=threads)

    def run(self, code: str) -> str:
        """Run a kernel to its end and return its output."""
        self.script.write_text(f"{HEAD}{code}{WENT_ON}")
        printed = rehearsal.run(self.root, self.way, 1.0).output
        (self.root / "working" / "went-on").unlink()
        return printed

    def fail(self, code: str) -> str:
        """Return the error of a kernel, which stopped at the fault."""
        with pytest.raises(Mismatch) as error:
            self.run(code)
        assert not (self.root / "working" / "went-on").exists()
        message = str(error.value)
        assert "\n" not in message
        return message


@pytest.fixture(params=WAYS)
def kernel(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Kernel:
    (tmp_path / "weights").write_text("w" * 9)
    root = tmp_path / "kaggle"
    rehearsal.lay_out(root, {"ann/base": {"weights": tmp_path / "weights"}}, mounts.slug)
    programs, name = WAYS[request.param]
    (tmp_path / "bin").mkdir()
    for program in programs:
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"{program} is not here")
        (tmp_path / "bin" / program).symlink_to(path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "secret.csv").write_text("secret")
    result = Kernel(root, tmp_path / "hidden")
    if result.way.name != name:
        pytest.skip(f"this machine does not allow a {request.param}")
    return result


def each(*ways: str) -> pytest.MarkDecorator:
    """Run a test only in these kinds of sandbox."""
    return pytest.mark.parametrize("kernel", ways, indirect=True)


# The network


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("socket.create_connection(('192.0.2.1', 80), 5)", "getaddrinfo '192.0.2.1'"),
        ("socket.socket().connect(('192.0.2.1', 80))", "connect ('192.0.2.1', 80)"),
        ("socket.socket().connect_ex(('192.0.2.1', 80))", "connect ('192.0.2.1', 80)"),
        (
            "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 9))",
            "connect ('2001:db8::1', 9)",
        ),
        (
            "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
            "sendto ('192.0.2.1', 53)",
        ),
        (
            "socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('192.0.2.1', 53))",
            "sendmsg ('192.0.2.1', 53)",
        ),
        ("socket.gethostbyname('kaggle.com')", "gethostbyname 'kaggle.com'"),
        ("import urllib.request; urllib.request.urlopen('http://pypi.org')", "getaddrinfo"),
    ],
)
def test_a_kernel_that_tries_the_network_fails(kernel: Kernel, code: str, event: str) -> None:
    expected = "the kernel failed with exit code 1: the kernel tried to reach the network: socket."
    assert kernel.fail(f"import socket\n{code}").startswith(f"{expected}{event}")


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    {}\nexcept BaseException:\n    pass",
        "import threading\none = threading.Thread(target=lambda: {})\none.start()\none.join()",
    ],
    ids=["caught", "in a thread"],
)
def test_a_caught_attempt_ends_the_kernel_too(kernel: Kernel, code: str) -> None:
    code = code.format("socket.create_connection(('192.0.2.1', 80))")
    assert "tried to reach the network" in kernel.fail(f"import socket\n{code}")


def test_a_process_started_by_the_kernel_is_isolated_too(kernel: Kernel) -> None:
    child = "import socket; socket.socket().connect(('192.0.2.1', 80))"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}], check=True)"
    assert "CalledProcessError" in kernel.fail(code)


def test_processes_of_one_kernel_may_communicate(kernel: Kernel) -> None:
    code = """
import socket
one, other = socket.socketpair()
one.sendall(b"x"); one.sendmsg([b"y"])
server = socket.socket(socket.AF_UNIX); server.bind("here"); server.listen()
socket.socket(socket.AF_UNIX).connect("here")
server = socket.create_server(("127.0.0.1", 0))
with socket.create_connection(("localhost", server.getsockname()[1])) as sent:
    sent.sendall(b"z")
print(other.recv(2), server.accept()[0].recv(1))
"""
    assert kernel.run(code) == "b'xy' b'z'\n"


@each("sandbox", "namespace")
def test_an_own_network_has_only_the_loopback(kernel: Kernel) -> None:
    code = "import socket; print(*(name for _, name in socket.if_nameindex()))"
    assert kernel.run(code) == "lo\n"


# Files


def test_the_input_cannot_be_changed(kernel: Kernel) -> None:
    changes = (
        "open(path, 'a')",
        "open(folder + '/new', 'w')",
        "os.open(path, os.O_RDWR)",
        "os.remove(path)",
        "os.rename(path, 'mine')",
        "os.mkdir(folder + '/new')",
        "os.chmod(path, 0o777)",
        "os.truncate(path, 0)",
        "os.symlink('/', folder + '/new')",
        "__import__('shutil').rmtree(folder)",
        "__import__('pathlib').Path(path).write_text('mine')",
    )
    code = f"""
folder = KAGGLE + '/input/base'
path = folder + '/weights'
for change in {changes!r}:
    try:
        eval(change)
        print(change)
    except OSError as error:
        assert error.errno == 30, (change, error)  # Read-only file system
print(*os.listdir(folder), open(path).read())
"""
    assert kernel.run(code) == f"weights {'w' * 9}\n"
    assert kernel.hidden.with_name("weights").read_text() == "w" * 9


def test_a_kernel_works_in_the_working_folder(kernel: Kernel) -> None:
    code = "open('made', 'w').write('x'); print(os.getcwd() == KAGGLE + '/working', __name__)"
    assert kernel.run(code) == "True __main__\n"
    assert (kernel.root / "working" / "made").read_text() == "x"


@each("sandbox")
def test_an_own_file_system_has_the_folders_of_kaggle(kernel: Kernel) -> None:
    code = (
        "import sys; print('PARITY_KAGGLE' in os.environ, *sys.argv, sorted(os.listdir('/kaggle')))"
    )
    folders = ["guard", "input", "src", "working"]
    assert kernel.run(code) == f"False {sandbox.SCRIPT} {folders}\n"


@each("sandbox")
def test_no_local_file_can_be_seen_or_changed(kernel: Kernel) -> None:
    path = Path(__file__).resolve()
    code = f"""
print(os.path.exists({str(kernel.hidden / "secret.csv")!r}), os.path.exists({str(kernel.root)!r}))
for path in ({str(path)!r}, "/etc/new", "/new", "/kaggle/new"):
    try:
        open(path, "a").close()
        print("changed", path)
    except OSError:
        pass
"""
    assert kernel.run(code) == "False False\n"


@each("sandbox")
def test_a_home_is_empty_even_by_its_path(kernel: Kernel) -> None:
    prefix = Path(sys.base_prefix).resolve()
    for home in {Path(pwd.getpwuid(os.getuid()).pw_dir), Path.home()}:
        shown = kernel.run(f"print(*os.listdir({str(home)!r}))").split()
        visible = prefix.relative_to(home).parts[0] if prefix.is_relative_to(home) else None
        assert [name for name in shown if name != visible] == []


@each("namespace", "guard")
def test_without_an_own_file_system_a_variable_has_the_kaggle_folder(kernel: Kernel) -> None:
    code = "import sys; print(os.environ['PARITY_KAGGLE'], *sys.argv)"
    assert kernel.run(code) == f"{kernel.root} {kernel.script}\n"


# What is in its environment


def test_the_project_comes_from_its_wheel_and_not_from_the_checkout(kernel: Kernel) -> None:
    assert kernel.fail("import parity").endswith("No module named 'parity'")
    code = """
import subprocess, sys
os.makedirs("target/parity")
open("target/parity/__init__.py", "w").close()
path = os.pathsep.join([os.path.abspath("target"), os.environ["PYTHONPATH"]])
words = [sys.executable, "-c", "import parity, numpy; print(parity.__file__)"]
print(subprocess.check_output(words, env={**os.environ, "PYTHONPATH": path}, text=True), end="")
"""
    assert kernel.run(code).endswith("/working/target/parity/__init__.py\n")


def test_no_key_and_no_home_reaches_the_kernel(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle" / "kaggle.json").write_text('{"key": "secret"}')
    monkeypatch.setenv("HOME", str(home))
    secret = ("KAGGLE_KEY", "KAGGLE_USERNAME", "KAGGLE_API_TOKEN", "HF_TOKEN", "WANDB_API_KEY")
    paths = ("HF_HOME", "XDG_CACHE_HOME", "KAGGLE_CONFIG_DIR", "PARITY_DATA", "CI_TOKEN")
    for name in (*secret, *paths, "PYTHONPATH", "PYTHONSTARTUP", "https_proxy"):
        monkeypatch.setenv(name, str(home))
    code = "home = os.listdir(os.path.expanduser('~'))\n"
    code += "print(*sorted(os.environ)); print(home, *os.environ.values())"
    names, values = kernel.run(code).splitlines()
    expected = {"HOME", "HF_HUB_OFFLINE", "PARITY_KAGGLE", "PYTHONPATH", "PYTHONNOUSERSITE", "USER"}
    assert set(names.split()) <= {*expected, "LC_CTYPE", "PWD", *sandbox._PASSED_ON}
    assert values.startswith("[] ")
    assert str(home) not in values


def test_the_number_of_threads_is_set(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert kernel.apart().env["OMP_NUM_THREADS"] == "3"
    assert kernel.apart(threads=2).env["OMP_NUM_THREADS"] == "2"


def test_the_running_python_stays_visible() -> None:
    above = Path(sys.prefix).resolve().parent
    words = list(sandbox._covers([above]))
    triples = [words[start : start + 3] for start in range(len(words))]
    assert ["--tmpfs", str(above)] in [words[start : start + 2] for start in range(len(words))]
    assert ["--ro-bind", sys.prefix, sys.prefix] in triples
