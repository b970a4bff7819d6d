"""Records of what Kaggle holds: datasets, kernels, submissions."""

from dataclasses import dataclass

COMPLETE = "COMPLETE"
"""Kaggle's status of a successful run."""
FAILED = ("ERROR", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED")
"""Kaggle's statuses of a failed or canceled run."""


@dataclass(frozen=True, slots=True)
class KaggleDataset:
    """A dataset on Kaggle.

    Attributes:
        status: Kaggle's name of it, for example `READY` or `FAILED`.
        version: number of the current version.
        private: whether only its owner sees it.
        notes: version number → version notes; the first version has none, so its entry is the
            description.
    """

    status: str
    version: int
    private: bool
    notes: dict[int, str]


@dataclass(frozen=True, slots=True)
class KaggleKernel:
    """A kernel on Kaggle, or one to push.

    Attributes:
        ref: owner/slug.
        title: title; Kaggle derives the slug from it.
        text: source code.
        kind: `script` or `notebook`.
        image: Docker image, name@sha256:....
        machine: name of the accelerator.
        gpu: whether it has a GPU.
        internet: whether it can reach the network.
        private: whether only its owner sees it.
        datasets: dataset sources, owner/slug/N, pinned to a version.
        competitions: slugs of competition sources.
        models: model sources, owner/model/framework/variation/N.
        version: number of the current version; 0 if not pushed.
    """

    ref: str
    title: str
    text: str
    kind: str
    image: str
    machine: str
    gpu: bool
    internet: bool = False
    private: bool = True
    datasets: tuple[str, ...] = ()
    competitions: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    version: int = 0


@dataclass(frozen=True, slots=True)
class KaggleSubmission:
    """A submission on Kaggle; a score that is not available is empty.

    Attributes:
        ref: Kaggle's number of it.
        status: `PENDING`, `COMPLETE` or `ERROR`.
        description: our description, which contains the key.
        error: reason of a failure.
        public: public score, a decimal as text.
        private: private score, a decimal as text.
    """

    ref: int
    status: str
    description: str
    error: str = ""
    public: str = ""
    private: str = ""
