"""The stand-in for Kaggle's image, and our image built on it and run: buildah, bubblewrap, no hub.

Faults are tried as well: what must end a build or be refused inside is seen to do so. Skipped where
there is no buildah, no bubblewrap or no Python 3.12.
"""

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from deploy.wheelhouse import wheelhouses

from parity.competition import ranking as rankings
from parity.deploy.image import build_context, engines, freeze, image_lock, run_in_image
from parity.deploy.image.engines import Engine
from parity.deploy.image.run_in_image import ContainerJob, Mount, same
from parity.deploy.wheelhouse import build, interpreters, wheel_lock
from parity.pipeline.command_cores import image as images
from parity.pipeline.command_cores.run_in_image import current
from parity.pipeline.command_cores.run_in_image import inside as run_inside
from parity.pipeline.stage_cores.mine import mine
from parity.pipeline.stage_cores.prepare import prepare
from parity.run import digest, environment, files
from parity.run import manifest as manifests
from parity.run.errors import BadConfig, BadData
from parity.run.experiment import Run, open_run
from parity.run.paths import RunPaths
from tools import standin_image

pytestmark = pytest.mark.image

ROOT = Path(__file__).parents[1]
FREEZE = ROOT / "kaggle" / "image-freeze.txt"
RUN_FILE = f"""\
[data]
source = "{ROOT}/data/synthetic"
[split]
kind = "unseen"
unseen = 0.7
"""
BARE, FURNISHED = "localhost/kaggle-standin:bare", "localhost/kaggle-standin:tables"


@dataclass(frozen=True, slots=True)
class Ours:
    """Our image on the furnished stand-in, in a folder with a run.

    Attributes:
        run: its run file is `small.toml`, its data folder `data`.
        engine: what built it.
        told: what `invoke image` printed.
        record: what it noted.
    """

    run: Run
    engine: Engine
    told: str
    record: dict[str, Any]

    def do(self, job: ContainerJob) -> subprocess.CompletedProcess[str]:
        """Run a job in the image."""
        return do(self.engine, self.record["id"], job)


def do(engine: Engine, tag: str, job: ContainerJob) -> subprocess.CompletedProcess[str]:
    with run_in_image.entered(engine, tag, job) as words:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def python(code: str, *places: Mount, cwd: Path = Path("/tmp")) -> ContainerJob:
    return ContainerJob(["python", "-c", code], places, cwd)


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", autouse=True)
def engine(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Return a buildah whose images lie in a folder of their own, and leave nothing behind."""
    for program in ("buildah", "bwrap"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}: no image can be built and run here")
    try:
        interpreters.find(standin_image.MINOR)
    except BadConfig as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("storage")
    words = ["buildah", "info", "--format", "{{.store.GraphDriverName}}"]
    driver = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    places = {"driver": driver, "graphroot": f"{folder}/graph", "runroot": f"{folder}/run"}
    lines = ["[storage]", *(f"{name} = {json.dumps(value)}" for name, value in places.items())]
    conf = folder / "storage.conf"
    conf.write_text("\n".join(lines) + "\n")
    patch.setenv("CONTAINERS_STORAGE_CONF", str(conf))
    yield engines.named("buildah")
    for words in (["rm", "--all"], ["rmi", "--all", "--force"]):
        subprocess.run(["buildah", *words], capture_output=True, check=True, timeout=120)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def bare() -> str:
    standin_image.build(BARE, FREEZE.read_text(encoding="utf-8"))
    return BARE


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Ours:
    try:
        standin_image.build(FURNISHED, FREEZE.read_text(encoding="utf-8"), ["tables"])
    except BadData as error:
        pytest.skip(f"PyPI is not in reach, and this needs packages in the image: {error}")
    folder = tmp_path_factory.mktemp("work")
    checkout = wheelhouses.make(folder / "checkout")
    (folder / "small.toml").write_text(RUN_FILE)
    patch.setattr(RunPaths, "checkout", property(lambda _: checkout))
    patch.chdir(folder)
    run = open_run(Path("small.toml"))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        images.build(run, FURNISHED)
    record = files.read_json(run.workspace.data / images.RECORD)
    return Ours(run, engines.find(holding=FURNISHED), out.getvalue(), record)


@pytest.fixture
def laid(bare: str, tmp_path: Path) -> Path:
    """Return a build's context on the bare stand-in, which may be spoilt."""
    checkout = wheelhouses.make(tmp_path / "checkout")
    own = build.build_own(checkout, tmp_path / "own")
    house = wheel_lock.read(checkout / "offline_wheels" / "wheels.lock")
    build_context.assemble(tmp_path / "context", checkout, own, house)
    return tmp_path / "context"


# The stand-in


def test_the_stand_in_is_a_python_3_12_that_seems_to_have_every_package_of_the_image(
    engine: Engine, bare: str
) -> None:
    code = """
import bz2, ctypes, importlib.metadata, json, lzma, sqlite3, ssl, sys
found = {one.name: one.version for one in importlib.metadata.distributions()}
print(json.dumps([list(sys.version_info[:2]), sys.path, found]))
"""
    answer = do(engine, bare, python(code))
    assert answer.stderr == ""
    version, path, found = json.loads(answer.stdout)
    assert version == [3, 12]
    assert all(one == "" or one.startswith("/usr/local/lib/python3") for one in path)
    found = {freeze.normal(name): version for name, version in found.items()}
    wanted = dict(freeze.pins(FREEZE.read_text(encoding="utf-8")))
    del found["pip"], wanted["pip"]  # the one package that is there for real
    assert found == wanted


def test_nothing_of_this_machines_packages_is_in_it(engine: Engine, bare: str) -> None:
    code = "import os; print(*sorted(os.listdir('/usr/local/lib/python3.12/site-packages')))"
    names = do(engine, bare, python(code)).stdout.split()
    assert {name for name in names if not name.endswith(".dist-info")} == {"pip"}


def test_it_does_not_pass_for_the_real_image(engine: Engine, bare: str) -> None:
    code = "import os; print(os.path.exists('/etc/git_commit'))"
    assert do(engine, bare, python(code)).stdout == "False\n"


def test_a_package_that_the_freeze_does_not_name_is_refused() -> None:
    with pytest.raises(BadData, match="--with vllm: the image's freeze names no such package"):
        standin_image.build(BARE, FREEZE.read_text(encoding="utf-8"), ["numpy", "vllm"])


# Building


def test_the_image_is_built_by_an_engine_that_is_named(ours: Ours) -> None:
    assert str(ours.engine).startswith("buildah 1.")
    assert f"building with {ours.engine}, without a network, on {FURNISHED}" in ours.told
    assert f"image {ours.record['id'][:12]}, made in " in ours.told
    assert "its base is not the locked image" in ours.told


def test_its_labels_are_the_digests_of_the_locks(ours: Ours) -> None:
    built = engines.look(ours.engine, ours.record["tag"])
    assert built is not None
    workspace = ours.run.workspace
    house = wheel_lock.read(workspace.wheelhouse / "wheels.lock")
    assert (
        built.labels["kaggle-parity.image-lock"] == image_lock.read(workspace.image_lock).digest()
    )
    assert built.labels["kaggle-parity.wheels-lock"] == house.digest()
    assert built.labels["kaggle-parity.code"] == environment.code()
    assert built.labels[build_context.BASE_LABEL] == FURNISHED
    assert built.env["PARITY_IMAGE"] == FURNISHED
    assert built.id == ours.record["id"]


def test_it_holds_the_wheelhouse_and_the_kernel_and_the_code_that_is_here(ours: Ours) -> None:
    code = """
import os, sys, toy
from parity.run import digest, environment
from pathlib import Path
kernel = digest.of_file(Path("/opt/kaggle-parity/kernel.py"))
print(toy.WORD, environment.code(), kernel, *sorted(os.listdir("/opt")), sep="|")
"""
    answer = ours.do(python(code))
    word, found, kernel, *opt = answer.stdout.strip().split("|")
    assert (word, found) == ("from the wheelhouse", environment.code())
    assert kernel == digest.of_file(ours.run.workspace.kernel)
    assert "kaggle-parity" in opt


def test_a_wheel_that_is_gone_ends_the_build(engine: Engine, laid: Path, bare: str) -> None:
    next((laid / "offline_wheels").glob("toy-*.whl")).unlink()
    with pytest.raises(BadData, match=r"could not build .*: Could not find a version.*toy==1\.0"):
        engines.build(engine, laid, "localhost/spoilt:1", {"BASE_IMAGE": bare})
    assert engines.look(engine, "localhost/spoilt:1") is None


def test_a_wheel_of_other_bytes_ends_the_build(engine: Engine, laid: Path, bare: str) -> None:
    (laid / "offline_wheels" / "toy-1.0-py3-none-any.whl").unlink()
    wheelhouses.write_wheel(laid / "offline_wheels", "toy", "1.0", 'WORD = "of somebody else"\n')
    with pytest.raises(BadData, match="DO NOT MATCH THE HASHES"):
        engines.build(engine, laid, "localhost/spoilt:1", {"BASE_IMAGE": bare})


def test_the_real_base_is_not_fetched_by_a_build(engine: Engine, laid: Path) -> None:
    started = time.monotonic()
    with pytest.raises(BadData) as caught:
        engines.build(engine, laid, "localhost/spoilt:1", {})  # the Dockerfile's own base
    reference = image_lock.read(ROOT / "kaggle" / "image.lock").reference
    assert reference in str(caught.value)
    assert str(caught.value).endswith("image not known")
    assert time.monotonic() - started < 10


@pytest.fixture
def listening() -> Iterator[int]:
    """Return a port of this machine that answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_build_reaches_no_network(
    engine: Engine, bare: str, tmp_path: Path, listening: int
) -> None:
    code = f"import socket; socket.create_connection(('127.0.0.1', {listening}), 5)"
    subprocess.run(["python3", "-c", code], check=True, timeout=30)  # from here it answers
    (tmp_path / "Dockerfile").write_text(f'FROM {bare}\nRUN python -c "{code}"\n')
    with pytest.raises(BadData):
        engines.build(engine, tmp_path, "localhost/spoilt:1", {})
    (tmp_path / "Dockerfile").write_text(f'FROM {bare}\nRUN python -c "import socket"\n')
    engines.build(engine, tmp_path, "localhost/whole:1", {})


# Running


def test_a_stage_inside_makes_the_same_files_as_here(
    ours: Ours, patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_inside(ours.run, ["prepare", "small.toml", "--where", "image"])
    assert "719 labeled rows" in capfd.readouterr().out
    there = ours.run.workspace.prepare
    with patch.context() as local:
        local.setenv("PARITY_DATA", "elsewhere")
        here = open_run(Path("small.toml"))
        prepare(here)
    assert digest.of_tree(there).keys() == digest.of_tree(here.workspace.prepare).keys()
    first, second = (manifests.read(one) for one in (there, here.workspace.prepare))
    assert first is not None
    assert second is not None
    assert first.environment["python"].startswith("3.12.")
    assert first.environment["packages"]["numpy"] == second.environment["packages"]["numpy"]
    alike = {"environment": {}, "seconds": 0.0}
    assert replace(first, **alike) == replace(second, **alike)  # type: ignore[arg-type]
    assert first.digest() == second.digest()
    assert {path.stat().st_uid for path in there.rglob("*")} == {os.getuid()}


def test_a_stage_that_fails_inside_fails_here_with_its_own_words(
    ours: Ours, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "data" / "synthetic", "spoilt")
    Path("spoilt", "train.csv").write_text("QuestionId\n1\n")
    Path("spoilt.toml").write_text('[data]\nsource = "spoilt"\n')
    with pytest.raises(SystemExit) as caught:
        run_inside(open_run(Path("spoilt.toml")), ["prepare", "spoilt.toml"])
    assert caught.value.code == BadData.exit_code
    assert "error: " in capfd.readouterr().err


def test_a_write_to_what_is_only_read_is_refused(ours: Ours, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    code = f"""
import pathlib
for place in ("{tmp_path}/in", "/", "/usr/local", "/kaggle/working", "{tmp_path}/out", "/tmp"):
    try:
        pathlib.Path(place, "new").write_text("x")
        print("written", place)
    except OSError as error:
        print(error.strerror, place)
"""
    job = python(code, same(tmp_path / "in"), same(tmp_path / "out", writable=True))
    assert ours.do(job).stdout.splitlines() == [
        f"Read-only file system {tmp_path}/in",
        *(f"Read-only file system {name}" for name in ("/", "/usr/local", "/kaggle/working")),
        f"written {tmp_path}/out",
        "written /tmp",
    ]
    assert (tmp_path / "out" / "new").read_text() == "x"


def test_nothing_else_of_this_machine_is_seen(ours: Ours, tmp_path: Path) -> None:
    (tmp_path / "seen").mkdir()
    (tmp_path / "unseen").mkdir()
    code = f"import os; print(os.listdir('{tmp_path}'), os.environ.get('SECRET'))"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", "x")
        answer = ours.do(python(code, same(tmp_path / "seen")))
    assert answer.stdout == "['seen'] None\n"


def test_a_process_inside_reaches_no_network(ours: Ours, listening: int) -> None:
    code = f"import socket; socket.create_connection(('127.0.0.1', {listening}), 5)"
    answer = ours.do(python(code))
    assert answer.returncode == 1
    assert "Connection refused" in answer.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file away")
def test_root_can_still_write_what_another_user_owns(ours: Ours, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 12345, 12345)
    code = f"open('{tmp_path}/theirs/new', 'w').write('x')"
    answer = ours.do(python(code, same(tmp_path / "theirs", writable=True)))
    assert (answer.returncode, answer.stderr) == (0, "")


def test_the_image_is_refused_once_the_code_is_another(
    ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert current(ours.run) == ours.record
    monkeypatch.setattr(environment, "code", lambda: "0" * 64)
    with pytest.raises(Exception, match="the image was built from another code"):
        current(ours.run)


def test_no_container_is_left(ours: Ours) -> None:
    words: Sequence[str] = ["buildah", "containers", "--quiet"]
    answer = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
    assert answer.stdout == ""


@pytest.mark.slow
def test_a_stage_with_a_model_ranks_alike_on_the_images_torch(
    ours: Ours, patch: pytest.MonkeyPatch
) -> None:
    """Takes about five minutes and 15 GB: PyPI's torch of the image's version has CUDA."""
    standin_image.build(FURNISHED, FREEZE.read_text(encoding="utf-8"), ["tables", "models"])
    Path("model.toml").write_text(RUN_FILE + '[encoder]\nlayers = 2\nprecision = "fp32"\n')
    run = open_run(Path("model.toml"))
    images.build(run, FURNISHED)
    for stage in ("prepare", "mine"):
        run_inside(run, [stage, "model.toml"])
    with patch.context() as local:
        local.setenv("PARITY_DATA", "elsewhere")
        here = open_run(Path("model.toml"))
        prepare(here)
        mine(here)
    found = [one.workspace.stage("mine", 0) for one in (run, here)]
    inside_, outside = (manifests.read(one) for one in found)
    assert inside_ is not None
    assert outside is not None
    assert inside_.environment["packages"]["torch"].startswith("2.10.0")
    assert inside_.facts["miner"] == outside.facts["miner"]  # the same weights and settings
    assert inside_.inputs == outside.inputs
    theirs, mine_ = (rankings.read(one / "ranking.jsonl").top(25).ids for one in found)
    shared = [len(set(there) & set(here_)) for there, here_ in zip(theirs, mine_, strict=True)]
    assert sum(shared) / len(shared) > 24.9
