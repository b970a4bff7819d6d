"""Running a command in an image: each engine's command line, and what can be mounted.

`test_standin_image.py` runs these command lines in a built image.
"""

import os
from pathlib import Path

import pytest

from parity.deploy.image import run_in_image
from parity.deploy.image.engines import Engine
from parity.deploy.image.run_in_image import ContainerJob, Mount
from parity.run.errors import BadConfig

DOCKER, PODMAN, BUILDAH = (Engine(name, "1") for name in ("docker", "podman", "buildah"))
JOB = ContainerJob(
    command=["python", "-m", "parity", "mine", "runs/a.toml"],
    mounts=[Mount(Path("/d/data"), Path("/p/data"), True), Mount(Path("/d/in"), Path("/p/in"))],
    cwd=Path("/p"),
    env={"OMP_NUM_THREADS": "1"},
)
ON_GPU = ContainerJob(JOB.command, JOB.mounts, JOB.cwd, JOB.env, gpu=True)


def values_of(words: list[str], flag: str) -> list[str]:
    """Return the word after each occurrence of a flag."""
    return [words[position + 1] for position, word in enumerate(words) if word == flag]


# Docker and Podman


@pytest.mark.parametrize("engine", [DOCKER, PODMAN])
def test_a_container_has_no_network_has_a_read_only_root_and_is_removed(engine: Engine) -> None:
    words = run_in_image.run_command(engine, "localhost/x:1", JOB)
    assert words[:3] == [engine.name, "run", "--rm"]
    assert values_of(words, "--network") == ["none"]
    assert "--read-only" in words
    assert words[-6:] == ["localhost/x:1", *JOB.command]


def test_mounts_are_read_only_unless_the_job_makes_them_writable() -> None:
    words = run_in_image.run_command(DOCKER, "localhost/x:1", JOB)
    assert values_of(words, "--mount") == [
        "type=bind,source=/d/data,target=/p/data",
        "type=bind,source=/d/in,target=/p/in,readonly",
    ]
    assert values_of(words, "--workdir") == ["/p"]
    assert "OMP_NUM_THREADS=1" in values_of(words, "--env")


def test_new_files_belong_to_the_calling_user() -> None:
    words = run_in_image.run_command(DOCKER, "localhost/x:1", JOB)
    assert values_of(words, "--user") == [f"{os.getuid()}:{os.getgid()}"]


@pytest.mark.parametrize(("user", "expected"), [(0, []), (1000, ["keep-id"])])
def test_podman_keeps_the_id_of_an_ordinary_user(
    monkeypatch: pytest.MonkeyPatch, user: int, expected: list[str]
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: user)
    assert values_of(run_in_image.run_command(PODMAN, "localhost/x:1", JOB), "--userns") == expected


def test_gpus_are_passed_through_only_if_the_job_needs_them() -> None:
    assert values_of(run_in_image.run_command(DOCKER, "x", ON_GPU), "--gpus") == ["all"]
    assert values_of(run_in_image.run_command(PODMAN, "x", ON_GPU), "--device") == [
        "nvidia.com/gpu=all"
    ]
    for engine in (DOCKER, PODMAN):
        assert not {"--gpus", "--device"} & set(run_in_image.run_command(engine, "x", JOB))


# Buildah


def test_bubblewrap_makes_the_root_read_only_after_mounting() -> None:
    words = run_in_image.bubblewrap_arguments(JOB, {"PATH": "/bin", "OMP_NUM_THREADS": "9"})
    remount = words.index("--remount-ro")
    data = words.index("--bind")
    assert words[data : data + 3] == ["--bind", "/d/data", "/p/data"]
    read = words.index("--ro-bind")
    assert words[read : read + 3] == ["--ro-bind", "/d/in", "/p/in"]
    assert data < read < remount
    assert "--unshare-net" in words
    assert values_of(words, "--chdir") == ["/p"]
    assert words[-5:] == JOB.command


def test_the_jobs_variables_override_the_images() -> None:
    words = run_in_image.bubblewrap_arguments(
        JOB, {"PATH": "/bin", "OMP_NUM_THREADS": "9", "HOME": "/root"}
    )
    variables = {words[n + 1]: words[n + 2] for n, word in enumerate(words) if word == "--setenv"}
    assert variables == {"PATH": "/bin", "OMP_NUM_THREADS": "1", "HOME": "/tmp", "USER": "kaggle"}
    assert words.index("--clearenv") < words.index("--setenv")


def test_the_gpu_driver_comes_first_on_the_library_path() -> None:
    words = run_in_image.bubblewrap_arguments(ON_GPU, {"LD_LIBRARY_PATH": "/usr/lib64-nvidia"})
    variables = {words[n + 1]: words[n + 2] for n, word in enumerate(words) if word == "--setenv"}
    assert variables["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64:/usr/lib64-nvidia"
    without = run_in_image.bubblewrap_arguments(ON_GPU, {})
    assert "/usr/local/nvidia/lib64" in without


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put scripts for buildah and bubblewrap on the path; return the log of their arguments."""
    log = tmp_path / "log"
    output = '{"FromImageID": "ab", "OCIv1": {"config": {}}}'
    script = f"""#!/bin/sh
echo "$*" >> {log}
case "$1" in
  inspect) echo '{output}';;
  from) echo box;;
  mount) echo /mounted/box;;
esac
"""
    for name in ("buildah", "bwrap"):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return log


def fail_in_container(command: list[str]) -> None:
    with run_in_image.open_container(BUILDAH, "localhost/x:1", JOB) as words:
        command += words
        raise ZeroDivisionError


@pytest.mark.parametrize("user", [0, 1000])
def test_buildahs_container_is_removed_after_an_error(
    calls: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    command: list[str] = []
    with pytest.raises(ZeroDivisionError):
        fail_in_container(command)
    assert command[-5:] == JOB.command
    lines = calls.read_text().splitlines()
    assert lines[1] == "from --pull-never localhost/x:1"
    assert lines[-1] == "rm box"
    if user:  # mounting needs a user namespace
        assert command[:4] == ["buildah", "unshare", "--mount", "ROOT=box"]
    else:
        assert command[:3] == ["bwrap", "--bind", "/mounted/box"]


def test_an_image_that_the_engine_does_not_have_is_refused_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for engine in (DOCKER, BUILDAH):
        with (
            pytest.raises(BadConfig, match=r"does not have the image x:1$") as error,
            run_in_image.open_container(engine, "x:1", JOB),
        ):
            pass
        assert error.value.fix == ("image",)


def test_without_bubblewrap_the_error_names_the_package_to_install(
    calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (calls.parent / "bwrap").unlink()
    with (
        pytest.raises(BadConfig, match="needs bubblewrap: apt-get install bubblewrap"),
        run_in_image.open_container(BUILDAH, "localhost/x:1", JOB),
    ):
        pass
    assert "from" not in calls.read_text()


# Mounts


def test_a_link_is_mounted_under_its_own_name_with_the_content_of_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    result = run_in_image.mount_at_same_path(Path("link"), writable=True)
    assert result == Mount(tmp_path / "real", tmp_path / "link", True)


def test_a_path_that_does_not_exist_cannot_be_mounted(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="absent does not exist"):
        run_in_image.mount_at_same_path(tmp_path / "absent")


@pytest.mark.parametrize("path", ["/", "/usr", "/etc/passwd", "/usr/lib"])
def test_a_mount_over_the_images_own_files_is_refused(path: str) -> None:
    with pytest.raises(BadConfig, match="the image has its own files there"):
        run_in_image.mount_at_same_path(Path(path))
