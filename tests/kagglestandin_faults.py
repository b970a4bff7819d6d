"""The catalogue of faults of the stand-in for Kaggle, by name.

A changed reply ends with `StandIn.clear_faults()`; a changed state (a failed version) stays.
"""

from dataclasses import dataclass

import kagglestandin_hooks as hooks
from kagglestandin_plan import (
    EVERY,
    Drop,
    Effect,
    Empty,
    Fault,
    HalfGet,
    HalfPut,
    Hang,
    Hook,
    Reply,
)
from kagglestandin_state import Json

ALWAYS = 10**9
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
"""Endpoints where a call with a lost reply has an effect."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A fault of the catalogue: its description and its parts."""

    description: str
    faults: tuple[Fault, ...]

    def __call__(self) -> list[Fault]:
        return list(self.faults)


def _entry(
    description: str, endpoint: tuple[str, ...] | str, effect: Effect, *, times: int = 1
) -> Entry:
    endpoints = (endpoint,) if isinstance(endpoint, str) else endpoint
    return Entry(description, (Fault(endpoints, effect, times=times),))


def _several(description: str, **effects: Effect) -> Entry:
    """Return an entry with several faults, each on the first call to its endpoint."""
    return Entry(
        description,
        tuple(Fault((endpoint,), effect) for endpoint, effect in effects.items()),
    )


def _common_faults(endpoint: str) -> dict[str, Entry]:
    """Return the faults that the first call to any endpoint can have."""
    refused = {"code": 403, "message": "Permission denied"}
    many = {"code": 429, "message": "Too many requests"}
    effects: dict[str, tuple[str, Effect]] = {
        "403": ("is refused", Reply(403, refused)),
        "429": ("is rate limited, without Retry-After", Reply(429, many)),
        "429-seconds": ("is rate limited; Retry-After is 2 seconds", Reply(429, many, "2")),
        "429-date": ("is rate limited; Retry-After is a date", Reply(429, many, "date")),
        "500": ("returns an internal error", Reply(500)),
        "503": ("returns service unavailable", Reply(503)),
        "drop": ("loses its connection before it is carried out", Drop()),
        "hang": ("gets no reply", Hang()),
    }
    if endpoint in (*COMMITS, "PUT"):
        effects["lost"] = ("is carried out, and its reply is lost", Drop(committed=True))
    return {
        f"{endpoint}-{kind}": _entry(f"the first {endpoint} {description}", endpoint, effect)
        for kind, (description, effect) in effects.items()
    }


_OK: Json = {"status": "ok", "url": "https://www.kaggle.com/datasets", "ref": "/nobody/nothing"}
_FULL = {"error": "Maximum batch GPU session count of 2 reached."}
_BAD: Json = {"status": "error", "error": "The dataset could not be saved."}
_UPLOADS = {
    "PUT-503-halfway": _entry(
        "half of a file arrives, then 503; the query returns 308 with Range", "PUT", HalfPut(503)
    ),
    "PUT-503-always": _entry("every PUT returns 503", "PUT", Reply(503), times=ALWAYS),
    "PUT-drop-halfway": _entry("the connection drops in the middle of a file", "PUT", HalfPut()),
    "PUT-308": _entry(
        "a complete PUT returns 308, which the client does not retry", "PUT", Reply(308)
    ),
    "QUERY-308-no-range": _several(
        "half of a file arrives, then 503; the query returns 308 without Range",
        PUT=HalfPut(503),
        QUERY=Hook(hooks.forget_bytes),
    ),
    "QUERY-500": _several(
        "half of a file arrives, then 503; the query fails", PUT=HalfPut(503), QUERY=Reply(500)
    ),
    "session-expired": _several(
        "half of a file arrives, then 503; the session has expired: 404",
        PUT=HalfPut(503),
        QUERY=Hook(hooks.expire_session),
    ),
}
_DATASETS = {
    "dataset-error": _entry(
        "HTTP 200 with status error; nothing is created", CREATES, Reply(200, _BAD)
    ),
    "dataset-error-tags": _entry(
        "the same with invalidTags, the only part that the client prints",
        CREATES,
        Reply(200, {**_BAD, "invalidTags": ["nlp"]}),
    ),
    "dataset-invalid-tags": _entry(
        "created, but a tag is invalid", CREATES, hooks.change_reply(invalidTags=["nlp"])
    ),
    "dataset-404-at-first": _entry(
        "the first two calls do not find a new dataset",
        "CreateDataset",
        Hook(after=hooks.hide_dataset),
    ),
    "version-does-not-move": _entry(
        "HTTP 200 with status ok; nothing is created", CREATES, Reply(200, _OK)
    ),
    "version-late": _entry(
        "a version takes six polls",
        CREATES,
        hooks.process_version([*["BLOBS_RECEIVED"] * 6, "READY"], 6),
    ),
    "version-moves-by-two": _entry(
        "someone else creates a version just before",
        "CreateDatasetVersion",
        Hook(hooks.publish_by_hand),
    ),
    "version-ready-before-the-number": _entry(
        "READY for three polls while the version number is still the old one",
        CREATES,
        hooks.process_version(["READY"], 3),
    ),
    "version-failed": _entry(
        "a version ends in FAILED", CREATES, hooks.process_version(["BLOBS_RECEIVED", "FAILED"], 0)
    ),
    "listing-missing-file": _entry(
        "the first file is not listed",
        "ListDatasetFiles",
        Hook(after=hooks.drop_first_file),
        times=ALWAYS,
    ),
    "listing-late": _entry(
        "the first list is empty",
        "ListDatasetFiles",
        hooks.change_reply(datasetFiles=[], nextPageToken=""),
    ),
    "listing-wrong-size": _entry(
        "the first file is listed one byte short",
        "ListDatasetFiles",
        Hook(after=hooks.shorten_first_file),
        times=ALWAYS,
    ),
}
_SAVES = {
    "push-error": _entry("HTTP 200 with error; nothing is saved", "SaveKernel", Reply(200, _FULL)),
    "push-code-in-200": _entry(
        "HTTP 200 with code 403 in its JSON",
        "SaveKernel",
        Reply(200, {"code": 403, "message": "Notebook not found"}),
    ),
    **{
        f"push-invalid-{name}": _entry(
            f"saved and started without its {name}, listed in invalid{kind}",
            "SaveKernel",
            hooks.drop_sources(kind),
        )
        for name, kind in (
            ("tags", "Tags"),
            ("datasets", "DatasetSources"),
            ("competitions", "CompetitionSources"),
            ("kernels", "KernelSources"),
            ("models", "ModelSources"),
        )
    },
    "mounts-moved": _entry(
        "sources are mounted at the paths of 2026", "SaveKernel", Hook(after=hooks.mount_2026)
    ),
    "readback-internet": _entry(
        "GetKernel reports internet on",
        "GetKernel",
        hooks.change_metadata(enableInternet=True),
        times=ALWAYS,
    ),
    "readback-image": _entry(
        "GetKernel reports another image",
        "GetKernel",
        hooks.change_metadata(dockerImage="gcr.io/kaggle-gpu-images/python:latest"),
        times=ALWAYS,
    ),
}
_STATUS = "GetKernelSessionStatus"
_RUNS = {
    "kernel-error": _entry(
        "the kernel ends in ERROR, with a message",
        _STATUS,
        hooks.end_run("ERROR", "Notebook Timeout"),
    ),
    "kernel-canceled": _entry(
        "the kernel is canceled", _STATUS, hooks.end_run("CANCEL_ACKNOWLEDGED", "")
    ),
    "kernel-no-submission": _entry(
        "COMPLETE without submission.csv", _STATUS, hooks.write_submission(None)
    ),
    "kernel-empty-submission": _entry(
        "submission.csv has no bytes", _STATUS, hooks.write_submission(b"")
    ),
    "kernel-never-ends": _entry(
        "the kernel stays RUNNING", _STATUS, hooks.change_reply(status="RUNNING"), times=ALWAYS
    ),
    "kernel-older-status": Entry(
        "status and output are from an older version",
        (
            Fault(("SaveKernel",), Hook(hooks.add_older_version)),
            Fault((_STATUS, "ListKernelSessionOutput"), Hook(hooks.previous_version), times=ALWAYS),
        ),
    ),
    "outputs-late": _entry(
        "the first list of outputs is empty",
        "ListKernelSessionOutput",
        hooks.change_reply(files=[], log="", nextPageToken=""),
    ),
    "outputs-log-cut": _entry(
        "the log is truncated JSON",
        "ListKernelSessionOutput",
        Hook(after=hooks.truncate_log),
        times=ALWAYS,
    ),
    "OUTPUT-truncated": _entry("every file is truncated", "OUTPUT", HalfGet(), times=ALWAYS),
    "OUTPUT-truncated-once": _entry("the first file is truncated", "OUTPUT", HalfGet()),
    "OUTPUT-empty": _entry("every file is empty", "OUTPUT", Empty(), times=ALWAYS),
    "LOG-cut": _entry("the log stream is truncated", "LOG", HalfGet()),
}
_SUBMISSIONS = {
    "limits-none-left": _entry(
        "no submissions are left today",
        "GetSubmissionLimits",
        hooks.change_reply(numAllowedNow=0),
        times=ALWAYS,
    ),
    "submission-error": _entry(
        "the submission ends in ERROR", "CreateCodeSubmission", Hook(after=hooks.fail_submission)
    ),
    "submission-404-at-first": _entry(
        "the submission is not found at first",
        "GetSubmission",
        Reply(404, {"code": 404, "message": "Submission not found"}),
    ),
    "submission-never-scored": Entry(
        "the submission stays PENDING",
        (
            Fault(("ListSubmissions",), Hook(after=hooks.keep_pending), times=ALWAYS),
            Fault(
                ("GetSubmission",), Hook(after=lambda *call: hooks.pending(call[2])), times=ALWAYS
            ),
        ),
    ),
}
_EVERYTHING = {
    "hang": _entry("no call gets a reply", EVERY, Hang(), times=ALWAYS),
    "429-always": _entry(
        "every call is rate limited", EVERY, Reply(429, retry_after="2"), times=ALWAYS
    ),
    "clock-ahead": _entry("dates are a year ahead", EVERY, hooks.shift_clock(365), times=ALWAYS),
    "clock-behind": _entry("dates are a year behind", EVERY, hooks.shift_clock(-365), times=ALWAYS),
}
CATALOGUE: dict[str, Entry] = {
    **{
        name: entry
        for endpoint in (*METHODS, *FILES)
        for name, entry in _common_faults(endpoint).items()
    },
    **_UPLOADS,
    **_DATASETS,
    **_SAVES,
    **_RUNS,
    **_SUBMISSIONS,
    **_EVERYTHING,
}
"""Fault name → entry."""
