"""Hooks of the stand-in for Kaggle: changes of its state, of a request, or of a reply."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from kagglestandin import Kaggle
from kagglestandin_plan import Hook
from kagglestandin_state import (
    SUBMISSION,
    DatasetVersion,
    HttpError,
    Json,
    Kernel,
    KernelResult,
    SavedVersion,
)


def _newest(kaggle: Kaggle, body: Json) -> DatasetVersion:
    slug = body.get("slug") or body["datasetSlug"]
    return kaggle.datasets[f"{body['ownerSlug']}/{slug}"].versions[-1]


def process_version(statuses: list[str], hidden: int) -> Hook:
    """Give the new version these statuses, and hide it for a number of polls."""

    def after(kaggle: Kaggle, body: Json, reply: Json) -> Json:
        if reply.get("status") == "ok":
            version = _newest(kaggle, body)
            version.statuses, version.hidden = list(statuses), hidden
        return reply

    return Hook(after=after)


def hide_dataset(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    if reply.get("status") == "ok":
        kaggle.datasets[f"{body['ownerSlug']}/{body['slug']}"].unseen = 2
    return reply


def publish_by_hand(kaggle: Kaggle, body: Json) -> None:
    """Add a copy of the last version with other notes."""
    dataset = kaggle.datasets.get(f"{body['ownerSlug']}/{body['datasetSlug']}")
    if dataset and dataset.visible:
        last = dataset.visible[-1]
        notes = "Edited by hand"
        dataset.versions.append(
            replace(last, number=last.number + 1, notes=notes, description="", statuses=["READY"])
        )


def change_reply(**changes: object) -> Hook:
    return Hook(after=lambda kaggle, body, reply: {**reply, **changes})


def drop_first_file(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    return {**reply, "datasetFiles": reply["datasetFiles"][1:]}


def shorten_first_file(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    first, *remaining = reply["datasetFiles"] or [{"totalBytes": 1}]
    shorter = {**first, "totalBytes": first["totalBytes"] - 1}
    return {**reply, "datasetFiles": [shorter, *remaining]}


def drop_sources(kind: str) -> Hook:
    """Drop the sources (or tags) of a kind, and report them as invalid."""

    def after(kaggle: Kaggle, body: Json, reply: Json) -> Json:
        if "versionNumber" not in reply:
            return reply
        field = "categoryIds" if kind == "Tags" else f"{kind[:-7].lower()}DataSources"
        refused = list(body.get(field, [])) or ["nobody/nothing"]
        saved = kaggle.kernels[body["slug"]].versions[-1]
        saved.invalid[f"invalid{kind}"] = refused
        for source in refused:
            saved.mounts.pop(source, None)
        return {**reply, f"invalid{kind}": refused}

    return Hook(after=after)


def end_run(status: str, failure: str) -> Hook:
    """End the version whose status is requested with this status."""

    def before(kaggle: Kaggle, body: Json) -> None:
        result = KernelResult({}, "started\n", status, failure)
        _change_saved(kaggle, body, lambda saved: setattr(saved, "result", result))

    return Hook(before)


def write_submission(content: bytes | None) -> Hook:
    """Give the version whose status is requested this submission, or none."""

    def change(saved: SavedVersion, kaggle: Kaggle) -> None:
        result = kaggle.run(saved)
        files = {name: data for name, data in result.files.items() if name != SUBMISSION}
        saved.result = replace(result, files=files if content is None else {SUBMISSION: content})

    def before(kaggle: Kaggle, body: Json) -> None:
        _change_saved(kaggle, body, lambda saved: change(saved, kaggle))

    return Hook(before)


def _change_saved(kaggle: Kaggle, body: Json, change: Callable[[SavedVersion], None]) -> None:
    try:
        saved = kaggle.saved(body)
    except HttpError:
        return  # the call itself will be refused
    change(saved)


def add_older_version(kaggle: Kaggle, body: Json) -> None:
    """Add a complete older version of the kernel if it has none."""
    kernel = kaggle.kernels.setdefault(
        body["slug"], Kernel(len(kaggle.kernels) + 1, body["slug"], [])
    )
    if not kernel.versions:
        older = SavedVersion(1, {**body, "text": "an older kernel"}, {}, {}, [], kaggle.stamp())
        older.result = KernelResult({SUBMISSION: b"id,prediction\n1,0\n"}, "older\n")
        kernel.versions.append(older)


def previous_version(kaggle: Kaggle, body: Json) -> None:
    """Reply for the version before the requested one."""
    label = str(body.get("versionLabel") or "v0")
    body["versionLabel"] = f"v{max(1, int(label[1:]) - 1)}"


def change_metadata(**changes: object) -> Hook:
    return Hook(
        after=lambda kaggle, body, reply: {**reply, "metadata": {**reply["metadata"], **changes}}
    )


def mount_2026(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    kaggle.kernels[body["slug"]].versions[-1].uses_2026_paths = True
    return reply


def truncate_log(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    return {**reply, "log": reply["log"][: len(reply["log"]) // 2]}


def fail_submission(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    for submission in kaggle.submissions:
        if submission.ref == reply.get("ref"):
            submission.error = "Submission Scoring Error"
    return reply


def pending(submission: Json) -> Json:
    scores = {"publicScore": "", "privateScore": "", "errorDescription": ""}
    return {**submission, **scores, "status": "PENDING"}


def keep_pending(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    return {**reply, "submissions": [pending(item) for item in reply["submissions"]]}


def shift_clock(days: int) -> Hook:
    def before(kaggle: Kaggle, body: Json) -> None:
        kaggle.skew = timedelta(days=days)

    return Hook(before)


def forget_bytes(kaggle: Kaggle, body: Json) -> None:
    if body["token"] in kaggle.blobs:
        kaggle.blobs[body["token"]].data.clear()


def expire_session(kaggle: Kaggle, body: Json) -> None:
    if body["token"] in kaggle.blobs:
        kaggle.blobs[body["token"]].alive = False
