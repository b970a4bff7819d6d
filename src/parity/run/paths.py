"""The one place that knows paths: noun → file, for one run."""

from dataclasses import dataclass
from pathlib import Path

from parity.run.errors import BadConfig
from parity.run.resources import find_checkout, resource


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Where one run's nouns lie.

    Attributes:
        data: the data folder, `data/` unless `--data-dir` says otherwise.
        run: the run's name.
    """

    data: Path
    run: str

    @property
    def root(self) -> Path:
        """The run's folder; everything a stage writes lies below it."""
        return self.data / "runs" / self.run

    @property
    def ledger(self) -> Path:
        """Evidence of all runs, append-only."""
        return self.data / "ledger.jsonl"

    def evidence(self, record: str) -> Path:
        """Return the folder of what was measured with a record of evidence, by its id."""
        return self.data / "evidence" / record

    @property
    def bases(self) -> Path:
        """Converted base weights, shared by all runs."""
        return self.data / "bases"

    @property
    def embeddings(self) -> Path:
        """Embeddings kept from one command to the next, of all runs; may be removed at any time."""
        return self.data / "cache" / "embeddings"

    @property
    def digests(self) -> Path:
        """Digests of large files, of all runs; may be removed at any time."""
        return self.data / "cache" / "digests.json"

    @property
    def compiled(self) -> Path:
        """Layers compiled for GPUs, of all runs; may be removed at any time."""
        return self.data / "cache" / "compiled"

    @property
    def bytes_per_token(self) -> Path:
        """What a token was seen to take of a device's memory, of all runs."""
        return self.data / "cache" / "bytes_per_token.json"

    @property
    def uploads(self) -> Path:
        """Upload state of the Kaggle client, a folder for each content."""
        return self.data / "uploads"

    @property
    def prepare(self) -> Path:
        """Folder of `queries`, `test_queries`, `corpus`, `qrels`, `split`, `examples`, `probe`."""
        return self.root / "prepare"

    def split(self, name: str) -> Path:
        """Return the file of the split called `name`."""
        return self.prepare / "splits" / f"{name}.json"

    def stage(self, stage: str, round_: int) -> Path:
        """Return the folder of a stage of a round.

        Raises:
            BadConfig: the round is negative.
        """
        if round_ < 0:
            raise BadConfig(f"round {round_} does not exist; rounds start at 0")
        return self.root / f"round-{round_}" / stage

    def epoch(self, round_: int, epoch: int) -> Path:
        """Return the folder of the adapter saved after `epoch` (from 1)."""
        return self.stage("train", round_) / f"epoch-{epoch}"

    def adapter(self, round_: int) -> Path:
        """Return the folder of the round's chosen adapter."""
        return self.stage("train", round_) / "adapter"

    def evaluation(self, round_: int, label: str) -> Path:
        """Return the folder of an evaluation: `best`, `base` or `epoch-N`."""
        return self.root / f"round-{round_}" / "eval" / label

    def texts(self, round_: int, label: str) -> Path:
        """Return the file of the probe's texts and token ids as one evaluation saw them."""
        return self.root / f"round-{round_}" / "texts" / f"{label}.jsonl"

    def finished(self) -> list[Path]:
        """Return the manifests of all stages of all runs that belong to a round, by path."""
        return sorted((self.data / "runs").glob("*/round-*/**/manifest.json"))

    @property
    def attributions(self) -> Path:
        """What made the gaps from this run's scores to others, by the names of both."""
        return self.root / "attributions.json"

    @property
    def report(self) -> Path:
        """The run's report, Markdown."""
        return self.root / "report.md"

    @property
    def report_html(self) -> Path:
        """The same, one HTML file."""
        return self.root / "report.html"

    @property
    def image_lock(self) -> Path:
        """The lock of Kaggle's image."""
        return resource("kaggle/image.lock")

    @property
    def wheelhouse(self) -> Path:
        """Folder of the wheels missing from the image: the checkout's, or one in this folder."""
        return (find_checkout() or Path()) / "offline_wheels"

    @property
    def wheels_lock(self) -> Path:
        """The lock of these wheels; for an installed package, its own until one is written here."""
        path = self.wheelhouse / "wheels.lock"
        is_own = path.is_file() or find_checkout() is not None
        return path if is_own else resource("offline_wheels/wheels.lock")

    @property
    def kernel(self) -> Path:
        """The kernel's script."""
        return resource("kaggle/kernel.py")

    def relative(self, path: Path) -> str:
        """Return `path` relative to the data folder, for manifests; absolute ones stay out."""
        try:
            return path.resolve().relative_to(self.data.resolve()).as_posix()
        except ValueError:
            return path.name
