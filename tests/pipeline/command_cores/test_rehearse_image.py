"""The rehearsal in an image is compared with the one here; what the image made is played."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy.bundle import finished_run as chains
from deploy.bundle.finished_run import Chain

from parity.deploy.image import engines, image_lock
from parity.deploy.image.engines import Engine
from parity.deploy.image.run_in_image import ContainerJob, Mount
from parity.deploy.kernel import run_report
from parity.pipeline.command_cores import rehearse_image, run_in_image
from parity.run import files, ledger
from parity.run.errors import Mismatch, StaleInput
from parity.run.experiment import Run, open_run

pytestmark = pytest.mark.xdist_group("chain")  # which takes a while to make
ENGINE = Engine("buildah", "1.28")


class Played:
    """An image whose kernel leaves what a folder holds."""

    def __init__(self, run: Run, left: Path) -> None:
        self.run, self.left, self.jobs = run, left, list[ContainerJob]()

    @contextmanager
    def entered(self, engine: Engine, identity: str, job: ContainerJob) -> Iterator[list[str]]:
        assert (engine, identity) == (ENGINE, "a" * 64)
        self.jobs.append(job)
        (working,) = (str(place.source) for place in job.places if place.writable)
        code = (
            f"import shutil; shutil.copytree({str(self.left)!r}, {working!r}, dirs_exist_ok=True)"
        )
        yield [sys.executable, "-c", f"{code}; print('15 rows')"]

    def change(self, **layers: str) -> None:
        """Let the kernel in the image report other layers."""
        path = self.left / run_report.NAME
        record = files.read_json(path)
        record["evidence"]["layers"] |= layers
        path.write_text(json.dumps(record))


@pytest.fixture
def played(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Played:
    chain: Chain = chains.shared(tmp_path_factory.getbasetemp())
    shutil.copytree(chain.run.workspace.data, tmp_path / "data")
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    run = open_run(chain.run.file)
    made = Played(run, tmp_path / "left")
    shutil.copytree(run.workspace.stage("rehearse", 0) / "kaggle" / "working", made.left)
    monkeypatch.setattr(engines, "named", lambda name: ENGINE)
    monkeypatch.setattr(rehearse_image, "entered", made.entered)
    built_on(monkeypatch, "localhost/kaggle-standin:py312")
    return made


def built_on(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    record: dict[str, Any] = {
        "engine": "buildah",
        "tag": "localhost/kaggle-parity:test",
        "id": "a" * 64,
        "layers": {"base": base},
    }
    monkeypatch.setattr(run_in_image, "current", lambda run: record)


def kinds(run: Run) -> list[str]:
    return [one.kind for one in ledger.read(run.workspace.ledger)]


def test_the_same_is_told_to_be_the_same(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearse_image.rehearse_image(played.run)
    said = capsys.readouterr().out
    assert "15 rows (inside localhost/kaggle-parity:test with buildah 1.28, " in said
    assert "layers equal in training and image: 15 of 15" in said
    assert "token ids equal; probe cosine at least 1.0000000; overlap@25 1.0000; 0 of 15" in said
    assert kinds(played.run) == ["cv", "rehearsal", "rehearsal"]


def test_kaggle_is_where_kaggle_has_it(played: Played) -> None:
    rehearse_image.rehearse_image(played.run)
    (job,) = played.jobs
    root = played.run.workspace.stage("rehearse", 0) / "image"
    assert list(job.command) == ["python", "/kaggle/src/script.py"]
    assert list(job.places) == [
        Mount(root / "input", Path("/kaggle/input")),
        Mount(root / "working", Path("/kaggle/working"), writable=True),
        Mount(played.run.workspace.kernel, Path("/kaggle/src/script.py")),
    ]
    assert job.cwd == Path("/kaggle/working")
    assert not job.gpu
    assert len(list((root / "input").rglob("manifest.json"))) == 2


def test_only_the_locked_image_gives_evidence_of_its_name(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_on(monkeypatch, image_lock.read(played.run.workspace.image_lock).reference)
    rehearse_image.rehearse_image(played.run)
    assert kinds(played.run) == ["cv", "rehearsal", "image"]


def test_other_token_ids_are_a_mismatch_that_is_kept_as_evidence(played: Played) -> None:
    played.change(tokens="t" * 64)
    with pytest.raises(Mismatch, match=r"^layer tokens differs between the environments"):
        rehearse_image.rehearse_image(played.run)
    assert kinds(played.run) == ["cv", "rehearsal", "rehearsal"]


@pytest.mark.parametrize(("precision", "fails"), [("float32/none", True), ("float16/4bit", False)])
def test_embeddings_must_be_near_in_full_precision(
    played: Played, precision: str, fails: bool
) -> None:
    vectors = np.load(played.left / "probe.npy")
    vectors[0] = np.roll(vectors[0], 1)
    np.save(played.left / "probe.npy", vectors)
    played.change(precision=precision)
    if fails:
        with pytest.raises(Mismatch, match=r"a probe embedding has cosine"):
            rehearse_image.rehearse_image(played.run)
    else:
        rehearse_image.rehearse_image(played.run)


def test_without_a_rehearsal_here_there_is_nothing_to_compare_with(played: Played) -> None:
    shutil.rmtree(played.run.workspace.stage("rehearse", 0))
    with pytest.raises(StaleInput, match=r"^nothing to compare with; run: invoke rehearse --run"):
        rehearse_image.rehearse_image(played.run)
    assert played.jobs == []
