"""What can go wrong at Kaggle and on the way there: a catalogue with one name for each fault.

What a fault only tells ends with `StandIn.calm()`; what it does (a version that failed) stays.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from kagglestandin import Kaggle
from kagglestandin_plan import EVERY, Cut, Drop, Effect, Empty, Fault, Hang, Reply, Short, Twist
from kagglestandin_state import SUBMISSION, Json, Kernel, KernelResult, Refusal, Saved, Version

FOR_EVER = 10**9
BLOBS = ("StartBlobUpload",)
DATASETS = (
    *("GetDatasetStatus", "GetDataset", "CreateDataset", "CreateDatasetVersion"),
    "ListDatasetFiles",
)
KERNELS = ("SaveKernel", "GetKernelSessionStatus", "ListKernelSessionOutput", "GetKernel")
COMPETITIONS = ("CreateCodeSubmission", "GetSubmissionLimits", "ListSubmissions", "GetSubmission")
METHODS = (*BLOBS, *DATASETS, *KERNELS, *COMPETITIONS)
FILES = ("PUT", "OUTPUT", "LOG")
CREATES = ("CreateDataset", "CreateDatasetVersion")
COMMITS = (*CREATES, "SaveKernel", "CreateCodeSubmission")
"""Where a lost reply leaves something behind."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A fault of the catalogue: a line that says what it does, and what it is made of."""

    says: str
    faults: tuple[Fault, ...]

    def __call__(self) -> list[Fault]:
        return list(self.faults)


# What they do


def _newest(kaggle: Kaggle, body: Json) -> Version:
    slug = body.get("slug") or body["datasetSlug"]
    return kaggle.datasets[f"{body['ownerSlug']}/{slug}"].versions[-1]


def _comes(statuses: list[str], hidden: int) -> Twist:
    """Let the version just made go through these statuses and stay unseen for so many polls."""

    def after(kaggle: Kaggle, body: Json, reply: Json) -> Json:
        if reply.get("status") == "ok":
            made = _newest(kaggle, body)
            made.statuses, made.hidden = list(statuses), hidden
        return reply

    return Twist(after=after)


def _unseen(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    if reply.get("status") == "ok":
        kaggle.datasets[f"{body['ownerSlug']}/{body['slug']}"].unseen = 2
    return reply


def _somebody_else(kaggle: Kaggle, body: Json) -> None:
    """Add the last version once more, under other notes."""
    dataset = kaggle.datasets.get(f"{body['ownerSlug']}/{body['datasetSlug']}")
    if dataset and dataset.visible:
        last = dataset.visible[-1]
        notes = "Edited by hand"
        dataset.versions.append(
            replace(last, number=last.number + 1, notes=notes, description="", statuses=["READY"])
        )


def _says(**changes: object) -> Twist:
    return Twist(after=lambda kaggle, body, reply: {**reply, **changes})


def _first_missing(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    return {**reply, "datasetFiles": reply["datasetFiles"][1:]}


def _first_short(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    first, *others = reply["datasetFiles"] or [{"totalBytes": 1}]
    shorter = {**first, "totalBytes": first["totalBytes"] - 1}
    return {**reply, "datasetFiles": [shorter, *others]}


def _invalid(kind: str) -> Twist:
    """Save without the sources (or tags) of a kind, and say so."""

    def after(kaggle: Kaggle, body: Json, reply: Json) -> Json:
        if "versionNumber" not in reply:
            return reply
        asked = "categoryIds" if kind == "Tags" else f"{kind[:-7].lower()}DataSources"
        refused = list(body.get(asked, [])) or ["nobody/nothing"]
        saved = kaggle.kernels[body["slug"]].versions[-1]
        saved.invalid[f"invalid{kind}"] = refused
        for source in refused:
            saved.mounts.pop(source, None)
        return {**reply, f"invalid{kind}": refused}

    return Twist(after=after)


def _ends(status: str, failure: str) -> Twist:
    """Let the version whose status is asked end like this."""

    def before(kaggle: Kaggle, body: Json) -> None:
        ended = KernelResult({}, "started\n", status, failure)
        _saved(kaggle, body, lambda saved: setattr(saved, "result", ended))

    return Twist(before)


def _puts_out(content: bytes | None) -> Twist:
    """Let the version whose status is asked put out this as submission, or none."""

    def change(saved: Saved, kaggle: Kaggle) -> None:
        ended = kaggle.run(saved)
        files = {name: one for name, one in ended.files.items() if name != SUBMISSION}
        saved.result = replace(ended, files=files if content is None else {SUBMISSION: content})

    def before(kaggle: Kaggle, body: Json) -> None:
        _saved(kaggle, body, lambda saved: change(saved, kaggle))

    return Twist(before)


def _saved(kaggle: Kaggle, body: Json, change: Callable[[Saved], None]) -> None:
    try:
        saved = kaggle.saved(body)
    except Refusal:
        return  # it will be refused in a moment
    change(saved)


def _plant(kaggle: Kaggle, body: Json) -> None:
    """Let there be an older version of the kernel, done, if there is none."""
    kernel = kaggle.kernels.setdefault(
        body["slug"], Kernel(len(kaggle.kernels) + 1, body["slug"], [])
    )
    if not kernel.versions:
        older = Saved(1, {**body, "text": "an older kernel"}, {}, {}, [], kaggle.stamp())
        older.result = KernelResult({SUBMISSION: b"id,prediction\n1,0\n"}, "older\n")
        kernel.versions.append(older)


def _older(kaggle: Kaggle, body: Json) -> None:
    """Answer for the version before the one that is asked for."""
    label = str(body.get("versionLabel") or "v0")
    body["versionLabel"] = f"v{max(1, int(label[1:]) - 1)}"


def _read_back(**changes: object) -> Twist:
    return Twist(
        after=lambda kaggle, body, reply: {**reply, "metadata": {**reply["metadata"], **changes}}
    )


def _move(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    kaggle.kernels[body["slug"]].versions[-1].moved = True
    return reply


def _half_log(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    return {**reply, "log": reply["log"][: len(reply["log"]) // 2]}


def _scored_badly(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    for submission in kaggle.submissions:
        if submission.ref == reply.get("ref"):
            submission.error = "Submission Scoring Error"
    return reply


def _pending(one: Json) -> Json:
    scores = {"publicScore": "", "privateScore": "", "errorDescription": ""}
    return {**one, **scores, "status": "PENDING"}


def _all_pending(kaggle: Kaggle, body: Json, reply: Json) -> Json:
    return {**reply, "submissions": [_pending(one) for one in reply["submissions"]]}


def _off_by(days: int) -> Twist:
    def before(kaggle: Kaggle, body: Json) -> None:
        kaggle.skew = timedelta(days=days)

    return Twist(before)


def _forget(kaggle: Kaggle, body: Json) -> None:
    if body["token"] in kaggle.blobs:
        kaggle.blobs[body["token"]].data.clear()


def _expire(kaggle: Kaggle, body: Json) -> None:
    if body["token"] in kaggle.blobs:
        kaggle.blobs[body["token"]].alive = False


# The catalogue


def _one(says: str, where: tuple[str, ...] | str, effect: Effect, *, times: int = 1) -> Entry:
    places = (where,) if isinstance(where, str) else where
    return Entry(says, (Fault(places, effect, times=times),))


def _more(says: str, **effects: Effect) -> Entry:
    """Return an entry of several faults, each at the first call of its place."""
    return Entry(says, tuple(Fault((where,), effect) for where, effect in effects.items()))


def _answers(place: str) -> dict[str, Entry]:
    """Return what the first call at any place may meet."""
    refused = {"code": 403, "message": "Permission denied"}
    many = {"code": 429, "message": "Too many requests"}
    effects: dict[str, tuple[str, Effect]] = {
        "403": ("is refused", Reply(403, refused)),
        "429": ("is one too many, and no word of when to come again", Reply(429, many)),
        "429-seconds": ("is one too many; again in 2 seconds", Reply(429, many, "2")),
        "429-date": ("is one too many; again at a date", Reply(429, many, "date")),
        "500": ("meets an internal error", Reply(500)),
        "503": ("finds the service unavailable", Reply(503)),
        "drop": ("loses its connection before anything is done", Drop()),
        "hang": ("is never answered", Hang()),
    }
    if place in (*COMMITS, "PUT"):
        effects["lost"] = ("is carried out, and its reply is lost", Drop(committed=True))
    return {
        f"{place}-{kind}": _one(f"the first {place} {says}", place, effect)
        for kind, (says, effect) in effects.items()
    }


_OK: Json = {"status": "ok", "url": "https://www.kaggle.com/datasets", "ref": "/nobody/nothing"}
_FULL = {"error": "Maximum batch GPU session count of 2 reached."}
_BAD: Json = {"status": "error", "error": "The dataset could not be saved."}
_UPLOADS = {
    "PUT-503-halfway": _one(
        "half of a file arrives, then 503; the query is answered 308 with Range", "PUT", Cut(503)
    ),
    "PUT-503-for-ever": _one("no file ever arrives: 503", "PUT", Reply(503), times=FOR_EVER),
    "PUT-drop-halfway": _one("the connection drops in the middle of a file", "PUT", Cut()),
    "PUT-308": _one("a whole PUT is answered 308, which the client gives up on", "PUT", Reply(308)),
    "QUERY-308-no-range": _more(
        "half of a file arrives, then 503; the query is answered 308 without Range",
        PUT=Cut(503),
        QUERY=Twist(_forget),
    ),
    "QUERY-500": _more(
        "half of a file arrives, then 503; the query fails", PUT=Cut(503), QUERY=Reply(500)
    ),
    "session-expired": _more(
        "half of a file arrives, then 503; the session has expired: 404",
        PUT=Cut(503),
        QUERY=Twist(_expire),
    ),
}
_DATASETS = {
    "dataset-error": _one("HTTP 200 with status error, nothing is made", CREATES, Reply(200, _BAD)),
    "dataset-error-tags": _one(
        "the same with invalidTags, which is all that the client would print",
        CREATES,
        Reply(200, {**_BAD, "invalidTags": ["nlp"]}),
    ),
    "dataset-invalid-tags": _one("made, but a tag is invalid", CREATES, _says(invalidTags=["nlp"])),
    "dataset-404-at-first": _one(
        "a new dataset is not found by the first two calls", "CreateDataset", Twist(after=_unseen)
    ),
    "version-does-not-move": _one("HTTP 200, ok, and nothing is made", CREATES, Reply(200, _OK)),
    "version-late": _one(
        "a version takes six polls", CREATES, _comes([*["BLOBS_RECEIVED"] * 6, "READY"], 6)
    ),
    "version-moves-by-two": _one(
        "somebody else makes a version just before", "CreateDatasetVersion", Twist(_somebody_else)
    ),
    "version-ready-before-the-number": _one(
        "READY is told while the number is the old one, for three polls",
        CREATES,
        _comes(["READY"], 3),
    ),
    "version-failed": _one(
        "a version ends in FAILED", CREATES, _comes(["BLOBS_RECEIVED", "FAILED"], 0)
    ),
    "listing-missing-file": _one(
        "the first file is not listed",
        "ListDatasetFiles",
        Twist(after=_first_missing),
        times=FOR_EVER,
    ),
    "listing-late": _one(
        "the first listing is empty", "ListDatasetFiles", _says(datasetFiles=[], nextPageToken="")
    ),
    "listing-wrong-size": _one(
        "the first file is listed a byte short",
        "ListDatasetFiles",
        Twist(after=_first_short),
        times=FOR_EVER,
    ),
}
_SAVES = {
    "push-error": _one("HTTP 200 with error, nothing is saved", "SaveKernel", Reply(200, _FULL)),
    "push-code-in-200": _one(
        "HTTP 200 whose JSON has a code of 403",
        "SaveKernel",
        Reply(200, {"code": 403, "message": "Notebook not found"}),
    ),
    **{
        f"push-invalid-{name}": _one(
            f"saved and started without its {name}, told in invalid{kind}",
            "SaveKernel",
            _invalid(kind),
        )
        for name, kind in (
            ("tags", "Tags"),
            ("datasets", "DatasetSources"),
            ("competitions", "CompetitionSources"),
            ("kernels", "KernelSources"),
            ("models", "ModelSources"),
        )
    },
    "mounts-moved": _one(
        "sources are mounted at the places of 2026", "SaveKernel", Twist(after=_move)
    ),
    "readback-internet": _one(
        "GetKernel says that the internet is on",
        "GetKernel",
        _read_back(enableInternet=True),
        times=FOR_EVER,
    ),
    "readback-image": _one(
        "GetKernel names another image",
        "GetKernel",
        _read_back(dockerImage="gcr.io/kaggle-gpu-images/python:latest"),
        times=FOR_EVER,
    ),
}
_STATUS = "GetKernelSessionStatus"
_RUNS = {
    "kernel-error": _one(
        "the kernel ends in ERROR, with a message", _STATUS, _ends("ERROR", "Notebook Timeout")
    ),
    "kernel-canceled": _one("the kernel is canceled", _STATUS, _ends("CANCEL_ACKNOWLEDGED", "")),
    "kernel-no-submission": _one("COMPLETE without submission.csv", _STATUS, _puts_out(None)),
    "kernel-empty-submission": _one("submission.csv has no bytes", _STATUS, _puts_out(b"")),
    "kernel-never-ends": _one(
        "the kernel is RUNNING for ever", _STATUS, _says(status="RUNNING"), times=FOR_EVER
    ),
    "kernel-older-status": Entry(
        "status and output are those of an older version",
        (
            Fault(("SaveKernel",), Twist(_plant)),
            Fault((_STATUS, "ListKernelSessionOutput"), Twist(_older), times=FOR_EVER),
        ),
    ),
    "outputs-late": _one(
        "the first listing of outputs is empty",
        "ListKernelSessionOutput",
        _says(files=[], log="", nextPageToken=""),
    ),
    "outputs-log-cut": _one(
        "the log ends in the middle of its JSON",
        "ListKernelSessionOutput",
        Twist(after=_half_log),
        times=FOR_EVER,
    ),
    "OUTPUT-truncated": _one("files end half-way, always", "OUTPUT", Short(), times=FOR_EVER),
    "OUTPUT-truncated-once": _one("the first file ends half-way", "OUTPUT", Short()),
    "OUTPUT-empty": _one("files come without a byte", "OUTPUT", Empty(), times=FOR_EVER),
    "LOG-cut": _one("the log stream ends half-way", "LOG", Short()),
}
_SUBMISSIONS = {
    "limits-none-left": _one(
        "no submission is left today", "GetSubmissionLimits", _says(numAllowedNow=0), times=FOR_EVER
    ),
    "submission-error": _one(
        "the submission ends in ERROR", "CreateCodeSubmission", Twist(after=_scored_badly)
    ),
    "submission-404-at-first": _one(
        "the submission is not found at first",
        "GetSubmission",
        Reply(404, {"code": 404, "message": "Submission not found"}),
    ),
    "submission-never-scored": Entry(
        "the submission is PENDING for ever",
        (
            Fault(("ListSubmissions",), Twist(after=_all_pending), times=FOR_EVER),
            Fault(("GetSubmission",), Twist(after=lambda *call: _pending(call[2])), times=FOR_EVER),
        ),
    ),
}
_EVERYTHING = {
    "hang": _one("nothing is ever answered", EVERY, Hang(), times=FOR_EVER),
    "429-for-ever": _one(
        "every call is one too many", EVERY, Reply(429, retry_after="2"), times=FOR_EVER
    ),
    "clock-ahead": _one("dates are a year ahead", EVERY, _off_by(365), times=FOR_EVER),
    "clock-behind": _one("dates are a year behind", EVERY, _off_by(-365), times=FOR_EVER),
}
CATALOGUE: dict[str, Entry] = {
    **{name: entry for place in (*METHODS, *FILES) for name, entry in _answers(place).items()},
    **_UPLOADS,
    **_DATASETS,
    **_SAVES,
    **_RUNS,
    **_SUBMISSIONS,
    **_EVERYTHING,
}
"""Name → what it does and the faults it is made of."""
