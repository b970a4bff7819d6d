"""What Kaggle holds of a dataset is read as it is, and a yes that says no makes none."""

from pathlib import Path
from typing import Any

import pytest
from deploy.kaggle_api.end_to_end import Voyage
from kagglestandin_plan import Cut, Fault, Reply, Twist
from kagglestandin_server import StandIn
from kagglestandin_state import Dataset, File, Version

from parity.deploy.kaggle_api import types
from parity.deploy.kaggle_api.client import KaggleClient
from parity.run.errors import KaggleRejected, OutcomeUnknown

REF = "me/some-bundle"


def plant(standin: StandIn, *notes: str, **fields: Any) -> None:
    made = [
        Version(number, note, "", {}, ["READY"], 0, "2026-01-01T00:00:00.000Z")
        for number, note in enumerate(notes, start=1)
    ]
    standin.kaggle.datasets[REF] = Dataset(1, REF, "", "other", True, versions=made, **fields)


def test_notes_are_by_version_and_the_firsts_has_the_description(
    door: KaggleClient, standin: StandIn
) -> None:
    plant(standin, "Initial release", "", "third", description="of the dataset")
    notes = {1: "Initial release of the dataset", 2: "", 3: "third"}
    assert door.datasets.held(REF) == types.KaggleDataset("READY", 3, True, notes)


def test_a_dataset_that_is_not_seen_is_none(door: KaggleClient, standin: StandIn) -> None:
    assert door.datasets.held(REF) is None
    plant(standin, "")
    standin.inject("GetDataset-403")
    assert door.datasets.held(REF) is None
    assert door.datasets.held(REF) is not None


def test_files_are_those_of_the_version(door: KaggleClient, standin: StandIn) -> None:
    plant(standin, "", "")
    for number, one in enumerate(standin.kaggle.datasets[REF].versions, start=1):
        one.files = {f"part-{number}.txt": File.of(b"x" * number)}
    found = [door.datasets.files(REF, number) for number in (1, 2)]
    assert found == [{"part-1.txt": 1}, {"part-2.txt": 2}]


def test_an_error_within_a_list_is_told(door: KaggleClient, standin: StandIn) -> None:
    plant(standin, "")
    says = Twist(after=lambda *call: {**call[2], "errorMessage": "Version is being made"})
    standin.inject_faults(Fault(("ListDatasetFiles",), says))
    with pytest.raises(
        KaggleRejected, match=f"files of {REF} version 1: Kaggle says 'Version is being"
    ):
        door.datasets.files(REF, 1)


@pytest.mark.parametrize("status", ["error", "ERROR", "pending"])
def test_any_status_but_ok_makes_none(status: str, door: KaggleClient, standin: StandIn) -> None:
    standin.inject_faults(Fault(("CreateDataset",), Reply(200, {"status": status})))
    with pytest.raises(KaggleRejected, match=f"^publish {REF}: Kaggle answers status '{status}'$"):
        door.datasets.make_version(REF, [], notes="", new=("some bundle", "other"))


def test_an_upload_whose_session_is_dead_begins_anew(way: Voyage, tmp_path: Path) -> None:
    dead = [Fault(("PUT",), Cut(503)), Fault(("QUERY",), Reply(500), times=99)]
    way.standin.inject_faults(*dead)
    parcel = way.parcels["bundle"]
    with way.door() as door, door.datasets.uploaded(parcel.folder, tmp_path / "state") as tokens:
        assert len(tokens) == len(parcel.sizes)
    assert len(way.standin.sent("QUERY")) == 1


def test_an_answer_that_is_no_answer_is_asked_for_again_and_no_file_is_blamed(
    way: Voyage, tmp_path: Path
) -> None:
    page = Fault(("StartBlobUpload",), Reply(200), times=2)  # of a proxy
    way.standin.inject_faults(page)
    parcel = way.parcels["bundle"]
    with way.door() as door, door.datasets.uploaded(parcel.folder, tmp_path / "state") as tokens:
        assert len(tokens) == len(parcel.sizes)
    way.standin.inject_faults(Fault(("StartBlobUpload",), Reply(200), times=99))
    unknown = pytest.raises(
        OutcomeUnknown, match=r"^upload bundle: the answer was not understood, 6 times"
    )
    with way.door() as door, unknown, door.datasets.uploaded(parcel.folder, tmp_path / "more"):
        pass
