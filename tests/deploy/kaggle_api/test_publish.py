"""A content is published once, whole, private, and never mixed with another's bytes."""

import importlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deploy.kaggle_api.builds import REF, Builds
from deploy.kaggle_api.end_to_end import Stopwatch, Voyage
from deploy.kaggle_api.faults import CHANGES
from kagglestandin_plan import Cut, Drop, Fault, Twist
from kagglestandin_server import StandIn

from parity.deploy.kaggle_api import datasets, publish
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.publish import DatasetUpload
from parity.deploy.kaggle_api.types import KaggleDataset
from parity.run.errors import BadConfig, BadData, KaggleRejected, Mismatch, OutcomeUnknown

GOOD = {"ref": REF, "title": "some bundle", "license": "other", "sizes": {}, "digest": "ab" * 32}


@pytest.fixture
def builds(standin: StandIn, tmp_path: Path) -> Builds:
    return Builds(standin, tmp_path / "build")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


def changes(standin: StandIn, since: int = 0) -> list[str]:
    """Return the calls that change something, from the `since`th call on."""
    return [call.place for call in standin.calls[since:] if call.place in CHANGES]


# What is a parcel


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ref": "me/short"}, "me/short: a dataset's name is 6 to 50 of a-z, 0-9 and -"),
        *[
            ({"ref": f"me/{slug}"}, "a dataset's name is 6 to 50 of a-z, 0-9 and -")
            for slug in ("a" * 51, "some_bundle", "Some-Bundle", "-bundle", "bundle-", "a/bundle")
        ],
        ({"ref": "no-owner"}, "a dataset's name is"),
        ({"title": "short"}, "title 'short' has not 6 to 50 characters"),
        ({"title": "a" * 51}, "has not 6 to 50 characters"),
        (
            {"license": ""},
            "no license; name it, in Kaggle's words: --set shipping.license=\"apache",
        ),
    ],
)
def test_what_kaggle_would_refuse_or_bend_is_no_parcel(
    changed: dict[str, str], words: str, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"folder": tmp_path, **GOOD}
    DatasetUpload(**fields)
    with pytest.raises(BadConfig, match=re.escape(words)):
        DatasetUpload(**{**fields, **changed})


def test_a_version_is_known_by_its_notes_and_the_first_by_its_description() -> None:
    here, there = "ab" * 32, "cd" * 32
    notes = {
        1: f"Made from sha256:{there} sha256:{here}",
        2: f"sha256:{there}",
        3: "by hand",
        4: "sha256:ab",
    }
    found = [
        publish.digest_of(KaggleDataset("READY", number, True, notes)) for number in range(1, 6)
    ]
    assert found == [here, there, "", "", ""]


# Once


def test_a_content_is_sent_once(
    door: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    parcel = builds.build("a")
    made = publish.publish(door, parcel, scratch)
    assert (made.version, made.sent, made.pinned) == (1, True, f"{REF}/1")
    assert changes(standin) == [*["StartBlobUpload", "PUT"] * 4, "CreateDataset"]
    assert list(scratch.iterdir()) == []
    before = len(standin.calls)
    again = publish.publish(door, parcel, scratch)
    assert (again.version, again.sent) == (1, False)
    assert changes(standin, before) == []
    assert builds.held == [builds.contents(parcel)]


def test_it_is_private_and_has_its_license(
    door: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    parcel = builds.build("a")
    publish.publish(door, parcel, scratch)
    (said,) = standin.sent("CreateDataset")
    files = said.pop("files")
    assert len(files) == len(parcel.sizes)
    assert said == {
        "ownerSlug": "me",
        "slug": "some-bundle",
        "title": "some bundle",
        "licenseName": "other",
        "isPrivate": True,
        "description": f"sha256:{parcel.digest}",
    }


def test_another_content_is_a_new_version_and_the_old_one_again_too(
    door: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    contents = []
    for number, letter in enumerate("aba", start=1):
        parcel = builds.build(letter)
        contents.append(builds.contents(parcel))
        made = publish.publish(door, parcel, scratch)
        assert (made.version, made.sent) == (number, True)
    assert builds.held == contents
    first, second = (one["body"] for one in standin.sent("CreateDatasetVersion"))
    assert first["versionNotes"] != second["versionNotes"] == f"sha256:{parcel.digest}"
    assert len(first["files"]) == 4
    assert "deleteOldVersions" not in first


def test_a_version_made_by_hand_is_replaced(
    door: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    parcel = builds.build("a")
    publish.publish(door, parcel, scratch)
    standin.kaggle.datasets[REF].description = ""
    assert publish.publish(door, parcel, scratch).version == 2


def test_a_file_that_was_not_sealed_stops_it(
    door: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    parcel = builds.build("a")
    (parcel.folder / "notes.txt").write_text("not to be sent")
    for step in (
        lambda: publish.publish(door, parcel, scratch),
        lambda: publish.steps(door, parcel),
    ):
        with pytest.raises(BadData, match=r"^build/notes\.txt is not in its manifest; run: invoke"):
            step()
    assert changes(standin) == []


def test_a_dataset_that_everybody_sees_gets_nothing(
    door: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    known = builds.build("a")
    publish.publish(door, known, scratch)
    standin.kaggle.datasets[REF].private = False
    before = len(standin.calls)
    for parcel in (builds.build("a"), builds.build("b")):
        for step in (
            lambda item=parcel: publish.publish(door, item, scratch),
            lambda item=parcel: publish.steps(door, item),
        ):
            with pytest.raises(
                Mismatch, match=f"^{REF} is public; make it private in its settings"
            ):
                step()
    assert changes(standin, before) == []


# Whole


def test_all_pages_of_the_list_are_compared(
    door: KaggleClient,
    builds: Builds,
    scratch: Path,
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(datasets, "PAGE", 3)
    parcel = builds.build("a", files=9)
    publish.publish(door, parcel, scratch)
    assert len(standin.sent("ListDatasetFiles")) == 4
    del standin.kaggle.datasets[REF].versions[0].files["part-8.json"]
    with pytest.raises(Mismatch, match=f"^{REF} version 1 lacks part-8.json"):
        publish.publish(door, parcel, scratch)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda files: files.pop("part-1.json"), "lacks part-1.json"),
        (lambda files: files.update(more=files["part-1.json"]), "holds also more"),
        (
            lambda files: files.update({"part-1.json": files["manifest.json"]}),
            r"has \d+ bytes of part-1.json, and 4002 were sent",
        ),
    ],
)
def test_what_arrived_otherwise_is_named(
    spoil: Callable[[dict[str, Any]], None],
    words: str,
    door: KaggleClient,
    builds: Builds,
    scratch: Path,
) -> None:
    def after(kaggle: Any, body: Any, reply: Any) -> Any:
        spoil(kaggle.datasets[REF].versions[-1].files)
        return reply

    parcel = builds.build("a")
    builds.standin.inject_faults(Fault(("CreateDataset",), Twist(after=after)))
    with pytest.raises(Mismatch, match=f"^{REF} version 1 {words}; "):
        publish.publish(door, parcel, scratch)


# Cut off


def cut_off(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Kill the process, as it were, at the end of the `after`th PUT, and only then."""
    kind = importlib.import_module("kaggle.api.kaggle_api_extended").KaggleApi
    real, seen = kind.upload_complete, Counter[str]()

    def upload_complete(self: Any, *args: Any, **options: Any) -> Any:
        result = real(self, *args, **options)
        seen["PUT"] += 1
        if seen["PUT"] == after:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(kind, "upload_complete", upload_complete)


def half_sent(standin: StandIn) -> None:
    """Let half of the next file arrive."""
    standin.inject_faults(Fault(("PUT",), Cut(503)))


def test_two_builds_of_equal_names_sizes_and_times_never_mix(
    door: KaggleClient,
    builds: Builds,
    scratch: Path,
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = builds.build("a")
    half_sent(standin)
    cut_off(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        publish.publish(door, first, scratch)
    assert sum(len(blob.data) for blob in standin.kaggle.blobs.values()) > 0
    second = builds.build("b")
    assert second.sizes == first.sizes
    publish.publish(door, second, scratch)
    assert builds.held == [builds.contents(second)]
    third = builds.build("a")
    assert publish.publish(door, third, scratch).version == 2
    assert builds.held[1] == builds.contents(third)
    standin.check()


def test_they_would_mix_in_one_scratch_folder(
    door: KaggleClient,
    builds: Builds,
    scratch: Path,
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trap itself, so that the test above is known to be able to fail."""
    half_sent(standin)
    cut_off(monkeypatch, 1)
    with (
        pytest.raises(KeyboardInterrupt),
        door.datasets.uploaded(builds.build("a").folder, scratch),
    ):
        pass
    parcel = builds.build("b")
    with door.datasets.uploaded(parcel.folder, scratch) as tokens:
        door.datasets.make_version(REF, tokens, notes=parcel.notes, new=("some bundle", "other"))
    with pytest.raises(AssertionError, match=r"version 1 holds .* which nobody built"):
        standin.check()


def test_an_upload_that_was_cut_off_goes_on_at_once_where_it_was(
    door: KaggleClient,
    builds: Builds,
    scratch: Path,
    standin: StandIn,
    clock: Stopwatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parcel = builds.build("a")
    cut_off(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        publish.publish(door, parcel, scratch)
    before, begun = len(standin.calls), clock.time
    assert publish.publish(door, parcel, scratch).sent
    assert changes(standin, before) == ["StartBlobUpload", "PUT", "CreateDataset"]
    assert clock.time - begun < 60  # for the version, and for no mark
    assert builds.held == [builds.contents(parcel)]


class Impatient(Stopwatch):
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
def test_who_is_cut_off_while_kaggle_makes_a_version_makes_no_second(
    at: int, fault: str, way: Voyage, builds: Builds, scratch: Path
) -> None:
    parcel = builds.build("a")
    way.standin.inject(fault)
    way.clock = Impatient(at)
    with way.door() as door:
        with pytest.raises(KeyboardInterrupt):
            publish.publish(door, parcel, scratch)
        made = publish.publish(door, parcel, scratch)
    assert (made.version, made.sent) == (1, False)
    assert len(builds.held) == 1
    assert list(scratch.iterdir()) == []


def test_nothing_is_sent_while_kaggle_makes_a_version(
    door: KaggleClient, builds: Builds, scratch: Path, standin: StandIn, clock: Stopwatch
) -> None:
    publish.publish(door, builds.build("a"), scratch)
    standin.kaggle.datasets[REF].versions[-1].statuses = ["BLOBS_RECEIVED"]
    before = len(standin.calls)
    parcel = builds.build("b")
    with pytest.raises(
        OutcomeUnknown, match=f"still making a version of {REF} after 30 minutes; the same"
    ):
        publish.publish(door, parcel, scratch)
    assert changes(standin, before) == []
    standin.kaggle.datasets[REF].versions[-1].statuses = [*["BLOBS_RECEIVED"] * 4, "READY"]
    assert publish.publish(door, parcel, scratch).version == 2


def test_a_lost_reply_makes_one_version(
    door: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    publish.publish(door, builds.build("a"), scratch)
    parcel = builds.build("b")
    standin.inject_faults(Fault(("CreateDatasetVersion",), Drop(committed=True)))
    made = publish.publish(door, parcel, scratch)
    assert (made.version, made.sent, len(builds.held)) == (2, True, 2)
    standin.check()


def test_a_file_that_kaggle_takes_neither_time_publishes_nothing(
    door: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    parcel = builds.build("a")
    standin.inject("PUT-503-for-ever")
    words = r"^upload build: Upload unsuccessful: \S+; nothing was published; try again later$"
    with pytest.raises(KaggleRejected, match=words):
        publish.publish(door, parcel, scratch)
    assert builds.held == []
    standin.calm()
    assert publish.publish(door, parcel, scratch).version == 1


# Beforehand


def promised(lines: list[str]) -> Counter[str]:
    """Return how often `steps` says that a changing call is made."""
    calls = [word for line in lines for word in re.findall(r"[A-Z]\w+", line) if word in CHANGES]
    return Counter(calls)


def listed(lines: list[str]) -> set[str]:
    return {line.split()[2] for line in lines if ", PUT " in line}


@pytest.mark.parametrize("before", ["", "b", "a"])
def test_steps_tells_the_calls_that_publish_makes_then(
    before: str, door: KaggleClient, builds: Builds, scratch: Path, standin: StandIn
) -> None:
    if before:
        publish.publish(door, builds.build(before), scratch)
    parcel = builds.build("a")
    begun = len(standin.calls)
    lines = publish.steps(door, parcel)
    assert changes(standin, begun) == []
    begun = len(standin.calls)
    assert bool(before) != any("license other, private, 4 files" in line for line in lines)
    made = publish.publish(door, parcel, scratch)
    assert promised(lines) == Counter(changes(standin, begun))
    assert made.sent == bool(promised(lines))
    uploads = {call.body["name"] for call in standin.calls[begun:] if "name" in call.body}
    assert listed(lines) == uploads
    assert f"version {made.version} is " in lines[0]
    asked = {call.place for call in standin.calls[begun:]} - set(CHANGES)
    told = " ".join(lines)
    assert {"ListDatasetFiles"} <= {place for place in asked if place in told}
