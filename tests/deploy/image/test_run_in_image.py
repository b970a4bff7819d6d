"""What runs inside an image: which words each engine gets, and what may be mounted.

That the words do what they say is shown in `test_standin_image.py`, where an image can be built.
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
    places=[Mount(Path("/d/data"), Path("/p/data"), True), Mount(Path("/d/in"), Path("/p/in"))],
    cwd=Path("/p"),
    env={"OMP_NUM_THREADS": "1"},
)
ON_GPU = ContainerJob(JOB.command, JOB.places, JOB.cwd, JOB.env, gpu=True)


def after(words: list[str], flag: str) -> list[str]:
    """Return the word after each occurrence of a flag."""
    return [words[place + 1] for place, word in enumerate(words) if word == flag]


# Docker and Podman


@pytest.mark.parametrize("engine", [DOCKER, PODMAN])
def test_a_container_has_no_network_and_a_read_only_root_and_goes_away(engine: Engine) -> None:
    words = run_in_image.run_words(engine, "localhost/x:1", JOB)
    assert words[:3] == [engine.name, "run", "--rm"]
    assert after(words, "--network") == ["none"]
    assert "--read-only" in words
    assert words[-6:] == ["localhost/x:1", *JOB.command]


def test_places_are_mounted_where_the_job_says_and_only_the_writable_may_change() -> None:
    words = run_in_image.run_words(DOCKER, "localhost/x:1", JOB)
    assert after(words, "--mount") == [
        "type=bind,source=/d/data,target=/p/data",
        "type=bind,source=/d/in,target=/p/in,readonly",
    ]
    assert after(words, "--workdir") == ["/p"]
    assert "OMP_NUM_THREADS=1" in after(words, "--env")


def test_files_made_inside_are_the_callers() -> None:
    words = run_in_image.run_words(DOCKER, "localhost/x:1", JOB)
    assert after(words, "--user") == [f"{os.getuid()}:{os.getgid()}"]


@pytest.mark.parametrize(("user", "kept"), [(0, []), (1000, ["keep-id"])])
def test_podman_keeps_an_ordinary_users_number(
    monkeypatch: pytest.MonkeyPatch, user: int, kept: list[str]
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: user)
    assert after(run_in_image.run_words(PODMAN, "localhost/x:1", JOB), "--userns") == kept


def test_gpus_are_passed_through_only_where_the_job_asks() -> None:
    assert after(run_in_image.run_words(DOCKER, "x", ON_GPU), "--gpus") == ["all"]
    assert after(run_in_image.run_words(PODMAN, "x", ON_GPU), "--device") == ["nvidia.com/gpu=all"]
    for engine in (DOCKER, PODMAN):
        assert not {"--gpus", "--device"} & set(run_in_image.run_words(engine, "x", JOB))


# Buildah


def test_bubblewrap_mounts_first_and_makes_the_root_read_only_after_that() -> None:
    words = run_in_image.bubblewrap_words(JOB, {"PATH": "/bin", "OMP_NUM_THREADS": "9"})
    sealed = words.index("--remount-ro")
    data = words.index("--bind")
    assert words[data : data + 3] == ["--bind", "/d/data", "/p/data"]
    read = words.index("--ro-bind")
    assert words[read : read + 3] == ["--ro-bind", "/d/in", "/p/in"]
    assert data < read < sealed
    assert "--unshare-net" in words
    assert after(words, "--chdir") == ["/p"]
    assert words[-5:] == JOB.command


def test_its_process_starts_with_the_images_variables_and_the_jobs_over_them() -> None:
    words = run_in_image.bubblewrap_words(
        JOB, {"PATH": "/bin", "OMP_NUM_THREADS": "9", "HOME": "/root"}
    )
    given = {words[n + 1]: words[n + 2] for n, word in enumerate(words) if word == "--setenv"}
    assert given == {"PATH": "/bin", "OMP_NUM_THREADS": "1", "HOME": "/tmp", "USER": "kaggle"}
    assert words.index("--clearenv") < words.index("--setenv")


def test_a_gpus_driver_is_looked_for_before_what_the_image_names() -> None:
    words = run_in_image.bubblewrap_words(ON_GPU, {"LD_LIBRARY_PATH": "/usr/lib64-nvidia"})
    given = {words[n + 1]: words[n + 2] for n, word in enumerate(words) if word == "--setenv"}
    assert given["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64:/usr/lib64-nvidia"
    without = run_in_image.bubblewrap_words(ON_GPU, {})
    assert "/usr/local/nvidia/lib64" in without


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stand in for buildah, which notes what it is asked; bubblewrap is there as well."""
    notes = tmp_path / "notes"
    says = '{"FromImageID": "ab", "OCIv1": {"config": {}}}'
    script = f"""#!/bin/sh
echo "$*" >> {notes}
case "$1" in
  inspect) echo '{says}';;
  from) echo box;;
  mount) echo /mounted/box;;
esac
"""
    for name in ("buildah", "bwrap"):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return notes


def fail_within(told: list[str]) -> None:
    with run_in_image.entered(BUILDAH, "localhost/x:1", JOB) as words:
        told += words
        raise ZeroDivisionError


@pytest.mark.parametrize("user", [0, 1000])
def test_buildahs_container_is_removed_whatever_happens(
    calls: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    told: list[str] = []
    with pytest.raises(ZeroDivisionError):
        fail_within(told)
    assert told[-5:] == JOB.command
    asked = calls.read_text().splitlines()
    assert asked[1] == "from --pull-never localhost/x:1"
    assert asked[-1] == "rm box"
    if user:  # who may mount only in a namespace of their own
        assert told[:4] == ["buildah", "unshare", "--mount", "ROOT=box"]
    else:
        assert told[:3] == ["bwrap", "--bind", "/mounted/box"]


def test_an_image_that_is_gone_is_named_with_what_mends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for engine in (DOCKER, BUILDAH):
        with (
            pytest.raises(BadConfig, match=r"does not have the image x:1; run: invoke image"),
            run_in_image.entered(engine, "x:1", JOB),
        ):
            pass


def test_without_bubblewrap_one_line_says_what_to_install(
    calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (calls.parent / "bwrap").unlink()
    with (
        pytest.raises(BadConfig, match="needs bubblewrap; apt-get install bubblewrap"),
        run_in_image.entered(BUILDAH, "localhost/x:1", JOB),
    ):
        pass
    assert "from" not in calls.read_text()


# Places


def test_a_place_is_seen_under_its_own_path_and_is_what_a_link_points_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    found = run_in_image.same(Path("link"), writable=True)
    assert found == Mount(tmp_path / "real", tmp_path / "link", True)


def test_what_is_not_there_cannot_be_mounted(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="absent: not there"):
        run_in_image.same(tmp_path / "absent")


@pytest.mark.parametrize("path", ["/", "/usr", "/etc/passwd", "/usr/lib"])
def test_nothing_is_mounted_over_the_images_own_files(path: str) -> None:
    with pytest.raises(BadConfig, match="the image has files of its own there"):
        run_in_image.same(Path(path))
