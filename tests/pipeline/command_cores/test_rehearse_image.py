"""The rehearsal in an image is compared with the local one; the image's outputs are replayed."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy.bundle import finished_run
from deploy.bundle.finished_run import FinishedRun

from parity.deploy.image import engines, image_lock
from parity.deploy.image.engines import Engine
from parity.deploy.image.run_in_image import ContainerJob, Mount
from parity.deploy.kernel import run_report
from parity.pipeline.command_cores import rehearse_image, run_in_image
from parity.run import files, ledger
from parity.run.errors import Mismatch, StaleInput
from parity.run.experiment import Run, open_run

pytestmark = pytest.mark.xdist_group("chain")  # shares one finished run
ENGINE = Engine("buildah", "1.28")


class ReplayedImage:
    """An image whose kernel writes the files of a folder."""

    def __init__(self, run: Run, outputs: Path) -> None:
        self.run, self.outputs, self.jobs = run, outputs, list[ContainerJob]()

    @contextmanager
    def open_container(
        self, engine: Engine, identity: str, job: ContainerJob
    ) -> Iterator[list[str]]:
        assert (engine, identity) == (ENGINE, "a" * 64)
        self.jobs.append(job)
        (working,) = (str(mount.source) for mount in job.mounts if mount.writable)
        folders = f"{str(self.outputs)!r}, {working!r}"
        code = f"import shutil; shutil.copytree({folders}, dirs_exist_ok=True)"
        yield [sys.executable, "-c", f"{code}; print('15 rows')"]

    def change(self, **layers: str) -> None:
        """Let the kernel in the image report other layers."""
        path = self.outputs / run_report.NAME
        record = files.read_json(path)
        record["evidence"]["layers"] |= layers
        path.write_text(json.dumps(record))


@pytest.fixture
def replay(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ReplayedImage:
    finished: FinishedRun = finished_run.shared(tmp_path_factory.getbasetemp())
    shutil.copytree(finished.run.workspace.data, tmp_path / "data")
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    run = open_run(finished.run.file)
    image = ReplayedImage(run, tmp_path / "outputs")
    shutil.copytree(run.workspace.stage("rehearse", 0) / "kaggle" / "working", image.outputs)
    monkeypatch.setattr(engines, "by_name", lambda name: ENGINE)
    monkeypatch.setattr(rehearse_image, "open_container", image.open_container)
    built_on(monkeypatch, "localhost/kaggle-standin:py312")
    return image


def built_on(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    record: dict[str, Any] = {
        "engine": "buildah",
        "tag": "localhost/kaggle-parity:test",
        "id": "a" * 64,
        "layers": {"base": base},
    }
    monkeypatch.setattr(run_in_image, "read_current_image", lambda paths: record)


def kinds(run: Run) -> list[str]:
    return [record.kind for record in ledger.read(run.workspace.ledger)]


def test_equal_outputs_are_reported_as_equal(
    replay: ReplayedImage, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearse_image.rehearse_image(replay.run)
    output = capsys.readouterr().out
    assert "15 rows (inside localhost/kaggle-parity:test with buildah 1.28, " in output
    assert "layers equal in training and image: 15 of 15" in output
    assert "probe cosine at least 1.0000000; overlap of submissions 1.0000; 0 of 15 rows" in output
    assert kinds(replay.run) == ["cv", "rehearsal", "rehearsal"]


def test_folders_are_mounted_at_kaggles_paths(replay: ReplayedImage) -> None:
    rehearse_image.rehearse_image(replay.run)
    (job,) = replay.jobs
    root = replay.run.workspace.stage("rehearse", 0) / "image"
    assert list(job.command) == ["python", "/kaggle/src/script.py"]
    assert list(job.mounts) == [
        Mount(root / "input", Path("/kaggle/input")),
        Mount(root / "working", Path("/kaggle/working"), writable=True),
        Mount(replay.run.workspace.kernel, Path("/kaggle/src/script.py")),
    ]
    assert job.cwd == Path("/kaggle/working")
    assert not job.gpu
    assert len(list((root / "input").rglob("manifest.json"))) == 2


def test_only_the_locked_image_gives_evidence_of_kind_image(
    replay: ReplayedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_on(monkeypatch, image_lock.read(replay.run.workspace.image_lock).reference)
    rehearse_image.rehearse_image(replay.run)
    assert kinds(replay.run) == ["cv", "rehearsal", "image"]


def test_other_token_ids_are_a_mismatch_and_evidence(replay: ReplayedImage) -> None:
    replay.change(tokens="t" * 64)
    with pytest.raises(Mismatch, match=r"^layer tokens differs between the environments"):
        rehearse_image.rehearse_image(replay.run)
    assert kinds(replay.run) == ["cv", "rehearsal", "rehearsal"]


@pytest.mark.parametrize(("precision", "fails"), [("float32/none", True), ("float16/4bit", False)])
def test_embeddings_must_be_close_in_full_precision(
    replay: ReplayedImage, precision: str, fails: bool
) -> None:
    vectors = np.load(replay.outputs / "probe.npy")
    vectors[0] = np.roll(vectors[0], 1)
    np.save(replay.outputs / "probe.npy", vectors)
    replay.change(precision=precision)
    if fails:
        with pytest.raises(Mismatch, match=r"a probe embedding has cosine"):
            rehearse_image.rehearse_image(replay.run)
    else:
        rehearse_image.rehearse_image(replay.run)


def test_without_a_local_rehearsal_the_image_does_not_run(replay: ReplayedImage) -> None:
    shutil.rmtree(replay.run.workspace.stage("rehearse", 0))
    with pytest.raises(StaleInput, match=r"^rehearse of small is missing") as error:
        rehearse_image.rehearse_image(replay.run)
    assert error.value.fix == replay.run.command_words("rehearse")
    assert replay.jobs == []
