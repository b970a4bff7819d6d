"""Dataset calls: reading versions and files, uploads, and errors inside successful replies."""

from pathlib import Path
from typing import Any

import pytest
from deploy.kaggle_api.end_to_end import Shipment
from kagglestandin_plan import Fault, HalfPut, Hook, Reply
from kagglestandin_server import StandIn
from kagglestandin_state import Dataset, DatasetVersion, File

from parity.deploy.kaggle_api import types
from parity.deploy.kaggle_api.client import KaggleClient
from parity.run.errors import KaggleRejected, OutcomeUnknown

REF = "me/some-bundle"


def add_dataset(standin: StandIn, *notes: str, **fields: Any) -> None:
    versions = [
        DatasetVersion(number, note, "", {}, ["READY"], 0, "2026-01-01T00:00:00.000Z")
        for number, note in enumerate(notes, start=1)
    ]
    standin.kaggle.datasets[REF] = Dataset(1, REF, "", "other", True, versions=versions, **fields)


def test_the_notes_of_the_first_version_include_the_description(
    client: KaggleClient, standin: StandIn
) -> None:
    add_dataset(standin, "Initial release", "", "third", description="of the dataset")
    notes = {1: "Initial release of the dataset", 2: "", 3: "third"}
    assert client.datasets.get(REF) == types.KaggleDataset("READY", 3, True, notes)


def test_a_dataset_that_this_account_cannot_see_is_none(
    client: KaggleClient, standin: StandIn
) -> None:
    assert client.datasets.get(REF) is None
    add_dataset(standin, "")
    standin.inject("GetDataset-403")
    assert client.datasets.get(REF) is None
    assert client.datasets.get(REF) is not None


def test_files_are_listed_by_version(client: KaggleClient, standin: StandIn) -> None:
    add_dataset(standin, "", "")
    for number, version in enumerate(standin.kaggle.datasets[REF].versions, start=1):
        version.files = {f"part-{number}.txt": File.of(b"x" * number)}
    listings = [client.datasets.list_files(REF, number) for number in (1, 2)]
    assert listings == [{"part-1.txt": 1}, {"part-2.txt": 2}]


def test_an_error_inside_a_list_is_reported(client: KaggleClient, standin: StandIn) -> None:
    add_dataset(standin, "")
    hook = Hook(after=lambda *call: {**call[2], "errorMessage": "Version is being made"})
    standin.inject_faults(Fault(("ListDatasetFiles",), hook))
    with pytest.raises(
        KaggleRejected, match=f"files of {REF} version 1: Kaggle says 'Version is being"
    ):
        client.datasets.list_files(REF, 1)


@pytest.mark.parametrize("status", ["error", "ERROR", "pending"])
def test_any_status_except_ok_is_a_rejection(
    status: str, client: KaggleClient, standin: StandIn
) -> None:
    standin.inject_faults(Fault(("CreateDataset",), Reply(200, {"status": status})))
    with pytest.raises(KaggleRejected, match=f"^publish {REF}: Kaggle returned status '{status}'$"):
        client.datasets.create_version(REF, [], notes="", new=("some bundle", "other"))


def test_an_upload_with_an_expired_session_starts_again(shipment: Shipment, tmp_path: Path) -> None:
    expired = [Fault(("PUT",), HalfPut(503)), Fault(("QUERY",), Reply(500), times=99)]
    shipment.standin.inject_faults(*expired)
    upload = shipment.uploads["bundle"]
    with (
        shipment.client() as client,
        client.datasets.upload(upload.folder, tmp_path / "state") as tokens,
    ):
        assert len(tokens) == len(upload.sizes)
    assert len(shipment.standin.sent("QUERY")) == 1


def test_an_unreadable_reply_is_retried_and_is_not_an_upload_failure(
    shipment: Shipment, tmp_path: Path
) -> None:
    html = Fault(("StartBlobUpload",), Reply(200), times=2)  # a proxy's page
    shipment.standin.inject_faults(html)
    upload = shipment.uploads["bundle"]
    with (
        shipment.client() as client,
        client.datasets.upload(upload.folder, tmp_path / "state") as tokens,
    ):
        assert len(tokens) == len(upload.sizes)
    shipment.standin.inject_faults(Fault(("StartBlobUpload",), Reply(200), times=99))
    unreadable = pytest.raises(
        OutcomeUnknown, match=r"^upload bundle: the reply could not be parsed after 6 tries"
    )
    with (
        shipment.client() as client,
        unreadable,
        client.datasets.upload(upload.folder, tmp_path / "more"),
    ):
        pass
