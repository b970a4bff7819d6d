"""Content is published once, complete and private, and builds are never mixed."""

import importlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deploy.kaggle_api.builds import REF, Builds
from deploy.kaggle_api.end_to_end import FakeClock, Shipment
from deploy.kaggle_api.faults import CHANGES
from kagglestandin_plan import Drop, Fault, HalfPut, Hook
from kagglestandin_server import StandIn

from parity.deploy.kaggle_api import datasets, publish
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.publish import DatasetUpload
from parity.deploy.kaggle_api.types import KaggleDataset
from parity.run.errors import BadConfig, BadData, KaggleRejected, Mismatch, OutcomeUnknown

VALID = {"ref": REF, "title": "some bundle", "license": "other", "sizes": {}, "digest": "ab" * 32}


@pytest.fixture
def builds(standin: StandIn, tmp_path: Path) -> Builds:
    return Builds(standin, tmp_path / "build")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


def changes(standin: StandIn, since: int = 0) -> list[str]:
    """Return the calls that change something, from the `since`th call on."""
    return [call.endpoint for call in standin.calls[since:] if call.endpoint in CHANGES]


# Uploads


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ref": "me/short"}, "me/short: dataset name must be 6-50 characters of a-z, 0-9 and -"),
        *[
            ({"ref": f"me/{slug}"}, "dataset name must be 6-50 characters of a-z, 0-9 and -")
            for slug in ("a" * 51, "some_bundle", "Some-Bundle", "-bundle", "bundle-", "a/bundle")
        ],
        ({"ref": "no-owner"}, "dataset name must be"),
        ({"title": "short"}, "title 'short' must be 6-50 characters"),
        ({"title": "a" * 51}, "must be 6-50 characters"),
        (
            {"license": ""},
            "no license; set shipping.license to Kaggle's name of it, for example apache",
        ),
    ],
)
def test_values_that_kaggle_refuses_or_changes_are_refused(
    changed: dict[str, str], message: str, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"folder": tmp_path, **VALID}
    DatasetUpload(**fields)
    with pytest.raises(BadConfig, match=re.escape(message)):
        DatasetUpload(**{**fields, **changed})


def test_the_digest_is_read_from_notes_or_the_first_description() -> None:
    first, second = "ab" * 32, "cd" * 32
    notes = {
        1: f"Made from sha256:{second} sha256:{first}",
        2: f"sha256:{second}",
        3: "by hand",
        4: "sha256:ab",
    }
    digests = [
        publish.content_digest(KaggleDataset("READY", number, True, notes))
        for number in range(1, 6)
    ]
    assert digests == [first, second, "", "", ""]


# Idempotency


def test_content_is_sent_once(
    client: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    upload = builds.build("a")
    result = publish.publish(client, upload, scratch)
    assert (result.version, result.sent, result.pinned) == (1, True, f"{REF}/1")
    assert changes(standin) == [*["StartBlobUpload", "PUT"] * 4, "CreateDataset"]
    assert list(scratch.iterdir()) == []
    before = len(standin.calls)
    repeated = publish.publish(client, upload, scratch)
    assert (repeated.version, repeated.sent) == (1, False)
    assert changes(standin, before) == []
    assert builds.published == [builds.contents(upload)]


def test_a_dataset_is_private_and_has_its_license(
    client: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    upload = builds.build("a")
    publish.publish(client, upload, scratch)
    (request,) = standin.sent("CreateDataset")
    files = request.pop("files")
    assert len(files) == len(upload.sizes)
    assert request == {
        "ownerSlug": "me",
        "slug": "some-bundle",
        "title": "some bundle",
        "licenseName": "other",
        "isPrivate": True,
        "description": f"sha256:{upload.digest}",
    }


def test_new_content_is_a_new_version_and_so_is_old_content(
    client: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    contents = []
    for number, letter in enumerate("aba", start=1):
        upload = builds.build(letter)
        contents.append(builds.contents(upload))
        result = publish.publish(client, upload, scratch)
        assert (result.version, result.sent) == (number, True)
    assert builds.published == contents
    first, second = (request["body"] for request in standin.sent("CreateDatasetVersion"))
    assert first["versionNotes"] != second["versionNotes"] == f"sha256:{upload.digest}"
    assert len(first["files"]) == 4
    assert "deleteOldVersions" not in first


def test_a_version_created_by_hand_is_replaced(
    client: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    upload = builds.build("a")
    publish.publish(client, upload, scratch)
    standin.kaggle.datasets[REF].description = ""
    assert publish.publish(client, upload, scratch).version == 2


def test_an_unsealed_file_is_refused(
    client: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    upload = builds.build("a")
    (upload.folder / "notes.txt").write_text("not to be sent")
    for step in (
        lambda: publish.publish(client, upload, scratch),
        lambda: publish.planned_calls(client, upload),
    ):
        with pytest.raises(BadData, match=r"^build/notes\.txt is not in its manifest$") as error:
            step()
        assert error.value.fix == ("package",)
    assert changes(standin) == []


def test_a_public_dataset_is_refused(
    client: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    published = builds.build("a")
    publish.publish(client, published, scratch)
    standin.kaggle.datasets[REF].private = False
    before = len(standin.calls)
    for upload in (builds.build("a"), builds.build("b")):
        for step in (
            lambda item=upload: publish.publish(client, item, scratch),
            lambda item=upload: publish.planned_calls(client, item),
        ):
            with pytest.raises(
                Mismatch, match=f"^{REF} is public; make it private in its settings"
            ):
                step()
    assert changes(standin, before) == []


# Completeness


def test_all_pages_of_the_list_are_compared(
    client: KaggleClient,
    builds: Builds,
    scratch: Path,
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(datasets, "PAGE", 3)
    upload = builds.build("a", files=9)
    publish.publish(client, upload, scratch)
    assert len(standin.sent("ListDatasetFiles")) == 4
    del standin.kaggle.datasets[REF].versions[0].files["part-8.json"]
    with pytest.raises(Mismatch, match=f"^{REF} version 1 is missing part-8.json"):
        publish.publish(client, upload, scratch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop("part-1.json"), "is missing part-1.json"),
        (lambda files: files.update(more=files["part-1.json"]), "has an extra file more"),
        (
            lambda files: files.update({"part-1.json": files["manifest.json"]}),
            r"has \d+ bytes of part-1.json, expected 4002",
        ),
    ],
)
def test_a_difference_on_kaggle_is_reported(
    change: Callable[[dict[str, Any]], None],
    message: str,
    client: KaggleClient,
    builds: Builds,
    scratch: Path,
) -> None:
    def after(kaggle: Any, body: Any, reply: Any) -> Any:
        change(kaggle.datasets[REF].versions[-1].files)
        return reply

    upload = builds.build("a")
    builds.standin.inject_faults(Fault(("CreateDataset",), Hook(after=after)))
    with pytest.raises(Mismatch, match=f"^{REF} version 1 {message}; "):
        publish.publish(client, upload, scratch)


# Interruptions


def interrupt_upload(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Raise KeyboardInterrupt once, at the end of the `after`th PUT."""
    kind = importlib.import_module("kaggle.api.kaggle_api_extended").KaggleApi
    real, seen = kind.upload_complete, Counter[str]()

    def upload_complete(self: Any, *args: Any, **options: Any) -> Any:
        result = real(self, *args, **options)
        seen["PUT"] += 1
        if seen["PUT"] == after:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(kind, "upload_complete", upload_complete)


def truncate_upload(standin: StandIn) -> None:
    """Let only half of the next file arrive."""
    standin.inject_faults(Fault(("PUT",), HalfPut(503)))


def test_builds_with_equal_names_sizes_and_times_never_mix(
    client: KaggleClient,
    builds: Builds,
    scratch: Path,
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = builds.build("a")
    truncate_upload(standin)
    interrupt_upload(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        publish.publish(client, first, scratch)
    assert sum(len(blob.data) for blob in standin.kaggle.blobs.values()) > 0
    second = builds.build("b")
    assert second.sizes == first.sizes
    publish.publish(client, second, scratch)
    assert builds.published == [builds.contents(second)]
    third = builds.build("a")
    assert publish.publish(client, third, scratch).version == 2
    assert builds.published[1] == builds.contents(third)
    standin.check()


def test_builds_would_mix_in_a_shared_scratch_folder(
    client: KaggleClient,
    builds: Builds,
    scratch: Path,
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Show the trap, which proves that the test above can fail."""
    truncate_upload(standin)
    interrupt_upload(monkeypatch, 1)
    with (
        pytest.raises(KeyboardInterrupt),
        client.datasets.upload(builds.build("a").folder, scratch),
    ):
        pass
    upload = builds.build("b")
    with client.datasets.upload(upload.folder, scratch) as tokens:
        client.datasets.create_version(
            REF, tokens, notes=upload.notes, new=("some bundle", "other")
        )
    with pytest.raises(AssertionError, match=r"version 1 holds .* which is not a known build"):
        standin.check()


def test_an_interrupted_upload_resumes_at_once(
    client: KaggleClient,
    builds: Builds,
    scratch: Path,
    standin: StandIn,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upload = builds.build("a")
    interrupt_upload(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        publish.publish(client, upload, scratch)
    before, started = len(standin.calls), clock.time
    assert publish.publish(client, upload, scratch).sent
    assert changes(standin, before) == ["StartBlobUpload", "PUT", "CreateDataset"]
    assert clock.time - started < 60  # it waits for the version but not for a mark
    assert builds.published == [builds.contents(upload)]


class InterruptingClock(FakeClock):
    """Interrupts at the `at`th sleep."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.at -= 1
        if self.at == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("fault", ["version-late", "version-ready-before-the-number"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interruption_while_kaggle_processes_creates_no_second_version(
    at: int, fault: str, shipment: Shipment, builds: Builds, scratch: Path
) -> None:
    upload = builds.build("a")
    shipment.standin.inject(fault)
    shipment.clock = InterruptingClock(at)
    with shipment.client() as client:
        with pytest.raises(KeyboardInterrupt):
            publish.publish(client, upload, scratch)
        result = publish.publish(client, upload, scratch)
    assert (result.version, result.sent) == (1, False)
    assert len(builds.published) == 1
    assert list(scratch.iterdir()) == []


def test_nothing_is_sent_while_kaggle_processes_a_version(
    client: KaggleClient, builds: Builds, scratch: Path, standin: StandIn, clock: FakeClock
) -> None:
    publish.publish(client, builds.build("a"), scratch)
    standin.kaggle.datasets[REF].versions[-1].statuses = ["BLOBS_RECEIVED"]
    before = len(standin.calls)
    upload = builds.build("b")
    with pytest.raises(
        OutcomeUnknown, match=f"still processing a version of {REF} after 30 minutes; run"
    ):
        publish.publish(client, upload, scratch)
    assert changes(standin, before) == []
    standin.kaggle.datasets[REF].versions[-1].statuses = [*["BLOBS_RECEIVED"] * 4, "READY"]
    assert publish.publish(client, upload, scratch).version == 2


def test_a_lost_reply_creates_one_version(
    client: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    publish.publish(client, builds.build("a"), scratch)
    upload = builds.build("b")
    standin.inject_faults(Fault(("CreateDatasetVersion",), Drop(committed=True)))
    result = publish.publish(client, upload, scratch)
    assert (result.version, result.sent, len(builds.published)) == (2, True, 2)
    standin.check()


def test_a_file_that_is_refused_twice_publishes_nothing(
    client: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    upload = builds.build("a")
    standin.inject("PUT-503-always")
    message = r"^upload build: Upload unsuccessful: \S+; nothing was published, try again later$"
    with pytest.raises(KaggleRejected, match=message):
        publish.publish(client, upload, scratch)
    assert builds.published == []
    standin.clear_faults()
    assert publish.publish(client, upload, scratch).version == 1


# Dry run


def planned_changes(lines: list[str]) -> Counter[str]:
    """Return how often each changing call is planned."""
    calls = [word for line in lines for word in re.findall(r"[A-Z]\w+", line) if word in CHANGES]
    return Counter(calls)


def planned_files(lines: list[str]) -> set[str]:
    return {line.split()[2] for line in lines if ", PUT " in line}


@pytest.mark.parametrize("before", ["", "b", "a"])
def test_planned_calls_are_those_that_publish_makes(
    before: str, client: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    if before:
        publish.publish(client, builds.build(before), scratch)
    upload = builds.build("a")
    start = len(standin.calls)
    lines = publish.planned_calls(client, upload)
    assert changes(standin, start) == []
    start = len(standin.calls)
    assert bool(before) != any("license other, private, 4 files" in line for line in lines)
    result = publish.publish(client, upload, scratch)
    assert planned_changes(lines) == Counter(changes(standin, start))
    assert result.sent == bool(planned_changes(lines))
    uploads = {call.body["name"] for call in standin.calls[start:] if "name" in call.body}
    assert planned_files(lines) == uploads
    assert f"version {result.version} is " in lines[0]
    reads = {call.endpoint for call in standin.calls[start:]} - set(CHANGES)
    text = " ".join(lines)
    assert {"ListDatasetFiles"} <= {endpoint for endpoint in reads if endpoint in text}
