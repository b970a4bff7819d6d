"""The stand-in for Kaggle's image, and the project's image built on it.

The tests also check that faults end a build and that forbidden actions fail in the image. They are
skipped without buildah, bubblewrap or Python 3.12.
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
from shipped_data import synthetic_folder

from parity.competition import ranking as rankings
from parity.deploy.image import build_context, engines, freeze, image_lock, run_in_image
from parity.deploy.image.engines import Engine
from parity.deploy.image.run_in_image import ContainerJob, Mount, mount_at_same_path
from parity.deploy.wheelhouse import build, interpreters, wheel_lock
from parity.pipeline.command_cores import image as images
from parity.pipeline.command_cores.run_in_image import read_current_image, run_stage_in_image
from parity.pipeline.stage_cores.mine import mine
from parity.pipeline.stage_cores.prepare import prepare
from parity.run import digest, environment, files
from parity.run import manifest as manifests
from parity.run.errors import BadConfig, BadData
from parity.run.experiment import Run, open_run
from tools import standin_image

pytestmark = pytest.mark.image

ROOT = Path(__file__).parents[1]
FREEZE = ROOT / "kaggle" / "image-freeze.txt"
RUN_FILE = f"""\
[data]
source = "{synthetic_folder()}"
[split]
kind = "unseen"
unseen = 0.7
"""
EMPTY, WITH_TABLES = "localhost/kaggle-standin:empty", "localhost/kaggle-standin:tables"


@dataclass(frozen=True, slots=True)
class ProjectImage:
    """The project's image on the stand-in with tables, in a folder with a run.

    Attributes:
        run: run with the run file `small.toml` and the data folder `data`.
        engine: engine that built it.
        output: output of the command `image`.
        record: record that the command wrote.
    """

    run: Run
    engine: Engine
    output: str
    record: dict[str, Any]

    def run_job(self, job: ContainerJob) -> subprocess.CompletedProcess[str]:
        """Run a job in the image."""
        return run_job(self.engine, self.record["id"], job)


def run_job(engine: Engine, tag: str, job: ContainerJob) -> subprocess.CompletedProcess[str]:
    with run_in_image.open_container(engine, tag, job) as words:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def python(code: str, *mounts: Mount, cwd: Path = Path("/tmp")) -> ContainerJob:
    return ContainerJob(["python", "-c", code], mounts, cwd)


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", autouse=True)
def engine(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Yield a buildah with its own storage folder, which is removed afterwards."""
    for program in ("buildah", "bwrap"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing")
    try:
        interpreters.find(standin_image.MINOR)
    except BadConfig as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("storage")
    words = ["buildah", "info", "--format", "{{.store.GraphDriverName}}"]
    driver = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    settings = {"driver": driver, "graphroot": f"{folder}/graph", "runroot": f"{folder}/run"}
    lines = ["[storage]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]
    conf = folder / "storage.conf"
    conf.write_text("\n".join(lines) + "\n")
    patch.setenv("CONTAINERS_STORAGE_CONF", str(conf))
    yield engines.by_name("buildah")
    for words in (["rm", "--all"], ["rmi", "--all", "--force"]):
        subprocess.run(["buildah", *words], capture_output=True, check=True, timeout=120)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def empty_standin() -> str:
    standin_image.build(EMPTY, FREEZE.read_text(encoding="utf-8"))
    return EMPTY


@pytest.fixture(scope="module")
def project_image(
    tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch
) -> ProjectImage:
    try:
        standin_image.build(WITH_TABLES, FREEZE.read_text(encoding="utf-8"), ["tables"])
    except BadData as error:
        pytest.skip(f"PyPI cannot be reached: {error}")
    folder = tmp_path_factory.mktemp("work")
    checkout = wheelhouses.copy_checkout(folder / "checkout")
    (folder / "small.toml").write_text(RUN_FILE)
    wheelhouses.use_checkout(checkout, patch)
    patch.chdir(folder)
    run = open_run(Path("small.toml"))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        images.build(run, WITH_TABLES)
    record = files.read_json(run.workspace.data / images.RECORD)
    return ProjectImage(run, engines.find(image=WITH_TABLES), out.getvalue(), record)


@pytest.fixture
def context(empty_standin: str, tmp_path: Path) -> Path:
    """Return a build context that a test may change."""
    checkout = wheelhouses.copy_checkout(tmp_path / "checkout")
    project_wheel = build.build_project_wheel(tmp_path / "own", checkout / "src" / "parity")
    house = wheel_lock.read(checkout / "offline_wheels" / "wheels.lock")
    build_context.assemble(tmp_path / "context", checkout, project_wheel, house)
    return tmp_path / "context"


# The stand-in


def test_the_stand_in_is_a_python_3_12_with_metadata_of_every_package_of_the_image(
    engine: Engine, empty_standin: str
) -> None:
    code = """
import bz2, ctypes, importlib.metadata, json, lzma, sqlite3, ssl, sys
packages = {item.name: item.version for item in importlib.metadata.distributions()}
print(json.dumps([list(sys.version_info[:2]), sys.path, packages]))
"""
    result = run_job(engine, empty_standin, python(code))
    assert result.stderr == ""
    version, path, installed = json.loads(result.stdout)
    assert version == [3, 12]
    assert all(entry == "" or entry.startswith("/usr/local/lib/python3") for entry in path)
    actual = {freeze.normalize_name(name): version for name, version in installed.items()}
    expected = dict(freeze.parse_pins(FREEZE.read_text(encoding="utf-8")))
    del actual["pip"], expected["pip"]  # the only real package
    assert actual == expected


def test_the_stand_in_has_no_package_of_this_machine(engine: Engine, empty_standin: str) -> None:
    code = "import os; print(*sorted(os.listdir('/usr/local/lib/python3.12/site-packages')))"
    names = run_job(engine, empty_standin, python(code)).stdout.split()
    assert {name for name in names if not name.endswith(".dist-info")} == {"pip"}


def test_the_stand_in_is_not_mistaken_for_the_real_image(
    engine: Engine, empty_standin: str
) -> None:
    code = "import os; print(os.path.exists('/etc/git_commit'))"
    assert run_job(engine, empty_standin, python(code)).stdout == "False\n"


def test_a_package_that_is_not_in_the_freeze_is_refused() -> None:
    with pytest.raises(BadData, match="--with vllm: the image's freeze does not have this package"):
        standin_image.build(EMPTY, FREEZE.read_text(encoding="utf-8"), ["numpy", "vllm"])


# Building


def test_the_output_names_the_engine_and_the_image(project_image: ProjectImage) -> None:
    assert str(project_image.engine).startswith("buildah 1.")
    assert (
        f"building with {project_image.engine}, without a network, on {WITH_TABLES}"
        in project_image.output
    )
    assert f"image {project_image.record['id'][:12]}, built in " in project_image.output
    assert "its base is not the locked image" in project_image.output


def test_the_labels_are_the_digests_of_the_locks(project_image: ProjectImage) -> None:
    built = engines.inspect_image(project_image.engine, project_image.record["tag"])
    assert built is not None
    workspace = project_image.run.workspace
    house = wheel_lock.read(workspace.wheelhouse / "wheels.lock")
    assert (
        built.labels["kaggle-parity.image-lock"] == image_lock.read(workspace.image_lock).digest()
    )
    assert built.labels["kaggle-parity.wheels-lock"] == house.digest()
    assert built.labels["kaggle-parity.code"] == environment.code()
    assert built.labels[build_context.BASE_LABEL] == WITH_TABLES
    assert built.env["PARITY_IMAGE"] == WITH_TABLES
    assert built.id == project_image.record["id"]


def test_the_image_holds_wheelhouse_kernel_and_code_of_the_project(
    project_image: ProjectImage,
) -> None:
    code = """
import os, sys, toy
from parity.run import digest, environment
from pathlib import Path
kernel = digest.of_file(Path("/opt/kaggle-parity/kernel.py"))
print(toy.WORD, environment.code(), kernel, *sorted(os.listdir("/opt")), sep="|")
"""
    result = project_image.run_job(python(code))
    word, code_digest, kernel, *opt = result.stdout.strip().split("|")
    assert (word, code_digest) == ("from the wheelhouse", environment.code())
    assert kernel == digest.of_file(project_image.run.workspace.kernel)
    assert "kaggle-parity" in opt


def test_a_missing_wheel_ends_the_build(engine: Engine, context: Path, empty_standin: str) -> None:
    next((context / "offline_wheels").glob("toy-*.whl")).unlink()
    with pytest.raises(BadData, match=r"could not build .*: Could not find a version.*toy==1\.0"):
        engines.build(engine, context, "localhost/faulty:1", {"BASE_IMAGE": empty_standin})
    assert engines.inspect_image(engine, "localhost/faulty:1") is None


def test_a_wheel_with_other_bytes_ends_the_build(
    engine: Engine, context: Path, empty_standin: str
) -> None:
    (context / "offline_wheels" / "toy-1.0-py3-none-any.whl").unlink()
    wheelhouses.write_wheel(
        context / "offline_wheels", "toy", "1.0", 'WORD = "from another wheel"\n'
    )
    with pytest.raises(BadData, match="DO NOT MATCH THE HASHES"):
        engines.build(engine, context, "localhost/faulty:1", {"BASE_IMAGE": empty_standin})


def test_a_build_does_not_pull_the_base_image(engine: Engine, context: Path) -> None:
    started = time.monotonic()
    with pytest.raises(BadData) as error:
        engines.build(
            engine, context, "localhost/faulty:1", {}
        )  # with the Dockerfile's default base
    reference = image_lock.read(ROOT / "kaggle" / "image.lock").reference
    assert reference in str(error.value)
    assert str(error.value).endswith("image not known")
    assert time.monotonic() - started < 10


@pytest.fixture
def listening() -> Iterator[int]:
    """Yield a local port that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_build_reaches_no_network(
    engine: Engine, empty_standin: str, tmp_path: Path, listening: int
) -> None:
    code = f"import socket; socket.create_connection(('127.0.0.1', {listening}), 5)"
    subprocess.run(["python3", "-c", code], check=True, timeout=30)  # works on this machine
    (tmp_path / "Dockerfile").write_text(f'FROM {empty_standin}\nRUN python -c "{code}"\n')
    with pytest.raises(BadData):
        engines.build(engine, tmp_path, "localhost/faulty:1", {})
    (tmp_path / "Dockerfile").write_text(f'FROM {empty_standin}\nRUN python -c "import socket"\n')
    engines.build(engine, tmp_path, "localhost/valid:1", {})


# Running


def test_a_stage_in_the_image_writes_the_same_files_as_on_this_machine(
    project_image: ProjectImage, patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_stage_in_image(project_image.run, ["prepare", "small.toml", "--where", "image"])
    assert "719 labeled rows" in capfd.readouterr().out
    in_image = project_image.run.workspace.prepare
    with patch.context() as local:
        local.setenv("PARITY_DATA", "elsewhere")
        run = open_run(Path("small.toml"))
        prepare(run)
    assert digest.of_tree(in_image).keys() == digest.of_tree(run.workspace.prepare).keys()
    first, second = (manifests.read(path) for path in (in_image, run.workspace.prepare))
    assert first is not None
    assert second is not None
    assert first.environment["python"].startswith("3.12.")
    assert first.environment["packages"]["numpy"] == second.environment["packages"]["numpy"]
    equal_fields = {"environment": {}, "seconds": 0.0}
    assert replace(first, **equal_fields) == replace(second, **equal_fields)  # type: ignore[arg-type]
    assert first.digest() == second.digest()
    assert {path.stat().st_uid for path in in_image.rglob("*")} == {os.getuid()}


def test_a_failure_in_the_image_is_reported_with_its_message_and_exit_code(
    project_image: ProjectImage, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(synthetic_folder(), "faulty")
    Path("faulty", "train.csv").write_text("QuestionId\n1\n")
    Path("faulty.toml").write_text('[data]\nsource = "faulty"\n')
    with pytest.raises(SystemExit) as error:
        run_stage_in_image(open_run(Path("faulty.toml")), ["prepare", "faulty.toml"])
    assert error.value.code == BadData.exit_code
    assert "error: " in capfd.readouterr().err


def test_a_write_to_a_read_only_mount_fails(project_image: ProjectImage, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    code = f"""
import pathlib
for folder in ("{tmp_path}/in", "/", "/usr/local", "/kaggle/working", "{tmp_path}/out", "/tmp"):
    try:
        pathlib.Path(folder, "new").write_text("x")
        print("written", folder)
    except OSError as error:
        print(error.strerror, folder)
"""
    job = python(
        code,
        mount_at_same_path(tmp_path / "in"),
        mount_at_same_path(tmp_path / "out", writable=True),
    )
    assert project_image.run_job(job).stdout.splitlines() == [
        f"Read-only file system {tmp_path}/in",
        *(f"Read-only file system {name}" for name in ("/", "/usr/local", "/kaggle/working")),
        f"written {tmp_path}/out",
        "written /tmp",
    ]
    assert (tmp_path / "out" / "new").read_text() == "x"


def test_other_files_of_this_machine_are_not_visible(
    project_image: ProjectImage, tmp_path: Path
) -> None:
    (tmp_path / "mounted").mkdir()
    (tmp_path / "unmounted").mkdir()
    code = f"import os; print(os.listdir('{tmp_path}'), os.environ.get('SECRET'))"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", "x")
        result = project_image.run_job(python(code, mount_at_same_path(tmp_path / "mounted")))
    assert result.stdout == "['mounted'] None\n"


def test_a_process_in_the_image_has_no_network(project_image: ProjectImage, listening: int) -> None:
    code = f"import socket; socket.create_connection(('127.0.0.1', {listening}), 5)"
    result = project_image.run_job(python(code))
    assert result.returncode == 1
    assert "Connection refused" in result.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root may change a file's owner")
def test_root_can_write_files_of_another_user(project_image: ProjectImage, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(mode=0o700)
    os.chown(tmp_path / "other", 12345, 12345)
    code = f"open('{tmp_path}/other/new', 'w').write('x')"
    result = project_image.run_job(
        python(code, mount_at_same_path(tmp_path / "other", writable=True))
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_an_image_built_from_other_code_is_refused(
    project_image: ProjectImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_current_image(project_image.run.workspace) == project_image.record
    monkeypatch.setattr(environment, "code", lambda: "0" * 64)
    with pytest.raises(Exception, match="the image was built from another code"):
        read_current_image(project_image.run.workspace)


def test_no_container_remains(project_image: ProjectImage) -> None:
    words: Sequence[str] = ["buildah", "containers", "--quiet"]
    result = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
    assert result.stdout == ""


@pytest.mark.slow
def test_a_stage_with_a_model_gives_a_similar_ranking_on_the_images_torch(
    project_image: ProjectImage, patch: pytest.MonkeyPatch
) -> None:
    """Take about five minutes and 15 GB, because PyPI's torch of the image's version has CUDA."""
    standin_image.build(WITH_TABLES, FREEZE.read_text(encoding="utf-8"), ["tables", "models"])
    Path("model.toml").write_text(RUN_FILE + '[encoder]\nlayers = 2\nprecision = "fp32"\n')
    run = open_run(Path("model.toml"))
    images.build(run, WITH_TABLES)
    for stage in ("prepare", "mine"):
        run_stage_in_image(run, [stage, "model.toml"])
    with patch.context() as local:
        local.setenv("PARITY_DATA", "elsewhere")
        local_run = open_run(Path("model.toml"))
        prepare(local_run)
        mine(local_run)
    folders = [item.workspace.stage("mine", 0) for item in (run, local_run)]
    in_image, outside = (manifests.read(folder) for folder in folders)
    assert in_image is not None
    assert outside is not None
    assert in_image.environment["packages"]["torch"].startswith("2.10.0")
    assert in_image.facts["miner"] == outside.facts["miner"]  # the same weights and settings
    assert in_image.inputs == outside.inputs
    positions = [rankings.read(folder / "ranking.jsonl").top(25).positions for folder in folders]
    shared = [len(set(first) & set(second)) for first, second in zip(*positions, strict=True)]
    assert sum(shared) / len(shared) > 24.9
