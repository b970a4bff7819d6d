"""What Kaggle holds, and what is to be held there, in this project's words."""

from dataclasses import dataclass

COMPLETE = "COMPLETE"
"""What Kaggle calls a run that ended well."""
FAILED = ("ERROR", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED")
"""What Kaggle calls one that did not."""


@dataclass(frozen=True, slots=True)
class KaggleDataset:
    """A dataset as Kaggle holds it.

    Attributes:
        status: as Kaggle names it, `READY` or `FAILED` among others.
        version: number of the current version.
        private: whether only its owner sees it.
        notes: version number → its notes; of the first, which has none, the description.
    """

    status: str
    version: int
    private: bool
    notes: dict[int, str]


@dataclass(frozen=True, slots=True)
class KaggleKernel:
    """A kernel, as it is to be or as Kaggle holds it.

    Attributes:
        ref: owner/slug.
        title: its slug is the title's.
        text: its source.
        kind: `script` or `notebook`.
        image: name@sha256:... of the image it runs in.
        machine: the accelerator's name.
        gpu: whether it has one.
        internet: whether it reaches the network.
        private: whether only its owner sees it.
        datasets: owner/slug/N, pinned.
        competitions: slugs.
        models: owner/model/framework/variation/N.
        version: number of the current version; 0 where it is to be.
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
    """A submission as Kaggle holds it; a score that is not known is empty.

    Attributes:
        ref: Kaggle's number of it.
        status: `PENDING`, `COMPLETE` or `ERROR`.
        description: ours, with the key.
        error: why it failed.
        public: public score, a decimal as text.
        private: private score, a decimal as text.
    """

    ref: int
    status: str
    description: str
    error: str = ""
    public: str = ""
    private: str = ""
