"""A kernel is saved once, with everything told, and read back in every point."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from deploy.kaggle_api.end_to_end import COMPETITION, IMAGE, Stopwatch
from kagglestandin import Kaggle
from kagglestandin_plan import Drop, Fault, Reply, Twist
from kagglestandin_server import StandIn
from kagglestandin_state import Dataset, Json, KernelResult, Model, Saved, Version

from parity.deploy.kaggle_api import push
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.types import FAILED, KaggleKernel
from parity.run.errors import KaggleRejected, Mismatch, OutcomeUnknown

KERNEL = KaggleKernel(
    ref="me/small-kernel",
    title="small kernel",
    text="print(1)\n",
    kind="script",
    image=IMAGE,
    machine="NvidiaTeslaT4",
    gpu=True,
    datasets=("me/small-bundle/3", "me/small-wheelhouse/12"),
    competitions=(COMPETITION,),
    models=("you/gem/transformers/2b/3",),
)


@pytest.fixture
def wanted(standin: StandIn) -> KaggleKernel:
    """Return a kernel whose sources are there."""
    refs = ("me/small-bundle", "me/small-wheelhouse")
    for number, ref in enumerate(refs, start=1):
        ready = Version(1, "", "", {}, ["READY"], 0, "")
        standin.kaggle.datasets[ref] = Dataset(number, ref, "", "other", True, versions=[ready])
    return replace(KERNEL, datasets=tuple(f"{ref}/1" for ref in refs), models=())


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


def versions(standin: StandIn) -> list[Saved]:
    kernel = standin.kaggle.kernels.get("me/small-kernel")
    return kernel.versions if kernel else []


def read_back(**changes: Any) -> Fault:
    """Let Kaggle tell something else of every kernel that it holds."""

    def after(kaggle: Kaggle, body: Json, reply: Json) -> Json:
        return {**reply, "metadata": {**reply["metadata"], **changes}}

    return Fault(("GetKernel",), Twist(after=after), times=99)


# Which it is


def test_a_key_names_bundle_and_wheelhouse_and_the_last_failure() -> None:
    keys = [push.key_of("a" * 64, "b" * 64, failed) for failed in ((), {1}, {1, 12}, {12})]
    assert keys[0] == f"bundle {'a' * 16}, wheelhouse {'b' * 16}"
    assert keys[1:] == [f"{keys[0]}, after version {number}" for number in (1, 12, 12)]


def test_a_source_with_its_key_is_the_same_program() -> None:
    for source in ("print(1)", "print(1)\n", "print(1)\n\n  \n"):
        assert push.keyed(source, "bundle x") == "print(1)\n# bundle x\n"
    compile(push.keyed("print(1)", push.key_of("a", "b", {3})), "kernel", "exec")


def test_a_notebook_is_one_and_has_the_source_as_it_is() -> None:
    nbformat = pytest.importorskip("nbformat")
    source = 'print("ä", r"\\n")\n# key\n'
    text = push.notebook(source)
    found = nbformat.reads(text, as_version=4)
    nbformat.validate(found)
    (cell,) = found.cells
    assert (cell.cell_type, cell.source) == ("code", source)
    assert found.metadata.kernelspec.language == "python"
    assert text == push.notebook(source)  # no id of the day


# What differs


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("text", "print(2)\n"),
        ("private", False),
        ("internet", True),
        ("gpu", False),
        ("image", IMAGE.replace("ab", "cd")),
        ("image", ""),
        ("kind", "notebook"),
        ("datasets", ()),
        ("datasets", ("me/small-bundle/3",)),
        ("datasets", ("me/small-bundle/3", "me/small-wheelhouse/13")),
        ("datasets", ("me/small-bundle", "me/other")),
        ("datasets", ("me/small-bundle", "me/small-wheelhouse/12")),
        ("datasets", (*KERNEL.datasets, "me/more/1")),
        ("competitions", ()),
        ("competitions", ("another",)),
        ("models", ()),
        ("models", ("you/gem/transformers/2b/4",)),
    ],
)
def test_each_point_is_compared(name: str, other: Any) -> None:
    changed: dict[str, Any] = {name: other}
    assert push.difference(KERNEL, replace(KERNEL, **changed, version=4)) == name


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"version": 7},
        {"title": "Small Kernel"},
        {"datasets": KERNEL.datasets[::-1]},
        {"datasets": ("me/small-bundle", "me/small-wheelhouse")},
        {"datasets": ("me/small-wheelhouse", "me/small-bundle")},
    ],
)
def test_what_says_nothing_is_no_difference(changed: dict[str, Any]) -> None:
    assert push.difference(KERNEL, replace(KERNEL, **changed)) == ""


def test_what_kaggle_adds_to_a_notebook_is_no_difference() -> None:
    wanted = replace(KERNEL, kind="notebook", text=push.notebook("print(1)\nprint(2)"))
    whole = json.loads(wanted.text)
    whole["metadata"]["kaggle"] = {"accelerator": "nvidiaTeslaT4", "isInternetEnabled": False}
    whole["cells"][0] |= {"source": ["print(1)\n", "print(2)"], "execution_count": 1, "id": "a"}
    assert push.difference(wanted, replace(wanted, text=json.dumps(whole, indent=4))) == ""
    whole["cells"][0]["source"][1] = "print(3)"
    assert push.difference(wanted, replace(wanted, text=json.dumps(whole))) == "text"
    whole["cells"].append({"cell_type": "code", "source": ""})
    assert push.difference(wanted, replace(wanted, text=json.dumps(whole))) == "text"
    for text in ("", "print(1)", "[]", "{}", '{"cells": 1}', '{"cells": ["print(1)"]}'):
        assert push.difference(wanted, replace(wanted, text=text)) == "text"


# What is told


def test_everything_is_told_on_the_wire(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    standin.kaggle.models["you/gem/transformers/2b/3"] = Model({})
    wanted = replace(wanted, models=("you/gem/transformers/2b/3",))
    made = push.push(door, wanted, scratch)
    assert (made.version, made.sent) == (1, True)
    (said,) = standin.sent("SaveKernel")
    assert said == {
        "slug": "me/small-kernel",
        "newTitle": "small kernel",
        "text": wanted.text,
        "language": "python",
        "kernelType": "script",
        "isPrivate": True,
        "enableGpu": True,
        "enableTpu": False,
        "enableInternet": False,
        "machineShape": "NvidiaTeslaT4",
        "dockerImage": IMAGE,
        "dockerImagePinningType": "original",
        "datasetDataSources": ["me/small-bundle/1", "me/small-wheelhouse/1"],
        "competitionDataSources": [COMPETITION],
        "modelDataSources": ["you/gem/transformers/2b/3"],
    }


@pytest.mark.parametrize("machine", ["", "NvidiaL4"])
def test_a_machine_is_told_where_there_is_one(
    machine: str, door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    push.push(door, replace(wanted, machine=machine, gpu=bool(machine)), scratch)
    (said,) = standin.sent("SaveKernel")
    assert (said.get("machineShape"), said["enableGpu"]) == (machine or None, bool(machine))
    assert (said["enableInternet"], said["isPrivate"]) == (False, True)


@pytest.mark.parametrize("kind", ["script", "notebook"])
def test_a_kernel_is_saved_once_in_either_form(
    kind: str, door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    text = push.notebook(wanted.text) if kind == "notebook" else wanted.text
    wanted = replace(wanted, kind=kind, text=text)
    assert push.push(door, wanted, scratch) == push.Pushed("me/small-kernel", 1, sent=True)
    assert push.push(door, wanted, scratch) == push.Pushed("me/small-kernel", 1, sent=False)
    assert len(standin.sent("SaveKernel")) == 1
    assert list(scratch.glob("*.mark")) == []


def test_another_form_or_bundle_is_another_version(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path
) -> None:
    other = replace(wanted, kind="notebook", text=push.notebook(wanted.text))
    newer = replace(wanted, text=push.keyed("print()", "bundle 2"))
    found = [push.push(door, one, scratch).version for one in (wanted, other, newer, wanted)]
    assert found == [1, 2, 3, 4]


# After a failure


def ended(standin: StandIn, status: str) -> None:
    last = versions(standin)[-1]
    last.waits.clear()
    last.result = KernelResult({}, status=status)


@pytest.mark.parametrize("status", FAILED)
def test_a_version_that_ended_badly_is_saved_again(
    status: str, door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    push.push(door, wanted, scratch)
    ended(standin, status)
    assert promises(push.steps(door, wanted))
    assert push.push(door, wanted, scratch).version == 2
    assert push.push(door, wanted, scratch) == push.Pushed("me/small-kernel", 2, sent=False)


def test_a_version_that_is_known_to_be_bad_is_saved_again(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    push.push(door, wanted, scratch)  # it ended well, and its submission did not
    assert promises(push.steps(door, wanted, {1}))
    assert push.push(door, wanted, scratch, {1}).version == 2
    assert not push.push(door, wanted, scratch, {1}).sent
    assert not promises(push.steps(door, wanted, {1}))


# What Kaggle made of it


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"enableInternet": True}, "made its internet True, told was False; set it in"),
        ({"isPrivate": False}, "made its private False, told was True; set it in"),
        ({"dockerImage": "python:latest"}, "made its image 'python:latest', told was 'gcr.io"),
        ({"kernelType": "notebook"}, "made its kind 'notebook', told was 'script'"),
        ({"datasetDataSources": []}, "its datasets is not what was told; stop it on its page"),
        ({"competitionDataSources": []}, "its competitions is not what was told; stop it"),
    ],
)
def test_what_kaggle_made_otherwise_is_named_and_is_not_saved_twice(
    changes: Json,
    words: str,
    door: KaggleClient,
    wanted: KaggleKernel,
    scratch: Path,
    standin: StandIn,
) -> None:
    standin.inject_faults(read_back(**changes))
    with pytest.raises(Mismatch, match=f"^me/small-kernel version 1: .*{re.escape(words)}"):
        push.push(door, wanted, scratch)
    assert len(standin.sent("SaveKernel")) == 1
    standin.calm()
    assert not push.push(door, wanted, scratch).sent


def test_a_setting_that_stays_wrong_is_not_pushed_over_and_over(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    standin.inject_faults(read_back(enableInternet=True))
    for _ in range(3):
        with pytest.raises(Mismatch, match="made its internet True"):
            push.push(door, wanted, scratch)
    with pytest.raises(Mismatch, match="made its internet True"):
        push.steps(door, wanted)
    assert len(standin.sent("SaveKernel")) == 1


def test_versions_that_are_read_back_without_their_numbers_are_taken(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    standin.inject_faults(read_back(datasetDataSources=["me/small-wheelhouse", "me/small-bundle"]))
    assert push.push(door, wanted, scratch).sent
    assert not push.push(door, wanted, scratch).sent


def test_a_source_that_is_not_there_is_refused_and_saved_again_once_it_is(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    hidden = standin.kaggle.datasets.pop("me/small-bundle")
    with pytest.raises(KaggleRejected, match=r"invalid dataset sources: me/small-bundle/1$"):
        push.push(door, wanted, scratch)
    standin.kaggle.datasets["me/small-bundle"] = hidden
    assert push.push(door, wanted, scratch).version == 2


def test_another_sessions_end_has_to_be_waited_for(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    standin.inject("push-error")
    with pytest.raises(
        KaggleRejected, match=r"wait for another session's end, then the same command$"
    ):
        push.push(door, wanted, scratch)
    assert push.push(door, wanted, scratch).version == 1


def test_a_version_of_somebody_else_is_told(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    def after(kaggle: Kaggle, body: Json, reply: Json) -> Json:
        mine = kaggle.kernels[body["slug"]].versions[-1]
        theirs = replace(mine, number=mine.number + 1, request={**body, "text": "print(0)"})
        kaggle.kernels[body["slug"]].versions.append(theirs)
        return reply

    standin.inject_faults(Fault(("SaveKernel",), Twist(after=after)))
    words = r"^me/small-kernel is at version 2, saved was 1: somebody else pushed; the same command"
    with pytest.raises(Mismatch, match=words):
        push.push(door, wanted, scratch)
    assert push.push(door, wanted, scratch).version == 3


# What is lost


def test_a_version_whose_reply_was_lost_is_found(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    standin.inject_faults(Fault(("SaveKernel",), Drop(committed=True)))
    assert push.push(door, wanted, scratch) == push.Pushed("me/small-kernel", 1, sent=True)
    assert len(versions(standin)) == 1


def test_a_reply_without_a_version_is_looked_up(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    def after(kaggle: Kaggle, body: Json, reply: Json) -> Json:
        return {name: one for name, one in reply.items() if name != "versionNumber"}

    standin.inject_faults(Fault(("SaveKernel",), Twist(after=after)))
    assert push.push(door, wanted, scratch).version == 1
    standin.inject_faults(Fault(("SaveKernel",), Reply(200, {"ref": "/me/small-kernel"})))
    with pytest.raises(OutcomeUnknown, match="Kaggle names no version; the same command looks"):
        push.push(door, replace(wanted, text="print(7)"), scratch)


def test_who_is_cut_off_saves_nothing_twice(
    door: KaggleClient,
    wanted: KaggleKernel,
    scratch: Path,
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(push, "_read_back", killed)
        with pytest.raises(KeyboardInterrupt):
            push.push(door, wanted, scratch)
    assert len(list(scratch.glob("*.mark"))) == 1
    assert push.push(door, wanted, scratch) == push.Pushed("me/small-kernel", 1, sent=False)
    assert list(scratch.glob("*.mark")) == []


def test_a_version_that_does_not_show_is_unknown(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn, clock: Stopwatch
) -> None:
    gone = {"code": 403, "message": "Permission 'kernels.get' was denied"}
    standin.inject_faults(Fault(("GetKernel",), Reply(403, gone), times=99))
    with pytest.raises(
        OutcomeUnknown, match=r"version 1 does not show; the same command looks again$"
    ):
        push.push(door, wanted, scratch)
    assert clock.time >= push.GRACE
    standin.calm()
    assert not push.push(door, wanted, scratch).sent


# Beforehand


def promises(lines: list[str]) -> bool:
    return any(line.startswith("SaveKernel ") for line in lines)


def test_steps_tells_what_push_does_then(
    door: KaggleClient, wanted: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    before = asdict(wanted)
    lines = push.steps(door, wanted)
    assert standin.sent("SaveKernel") == []
    assert lines == [
        "SaveKernel me/small-kernel, script, private, internet off, NvidiaTeslaT4",
        f"  image {IMAGE}",
        *("  source me/small-bundle/1", "  source me/small-wheelhouse/1"),
        f"  source {COMPETITION}",
        "GetKernel: compare what Kaggle made of it",
    ]
    assert push.push(door, wanted, scratch).sent
    assert push.steps(door, wanted) == [
        "me/small-kernel: version 1 is this kernel: nothing to save"
    ]
    assert len(standin.sent("SaveKernel")) == 1
    assert asdict(wanted) == before
