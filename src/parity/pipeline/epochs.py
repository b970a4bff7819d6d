"""What a training leaves after each epoch: the adapter, its scores, its probe embeddings.

`epoch-N.json` is written last and holds the digests of the rest, so an epoch that it proves is
whole; it is then never touched again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage
from parity.competition.scoring.metrics import Scores
from parity.competition.scoring.significance import compare
from parity.pipeline import encoder_loading
from parity.pipeline.dataset import Dataset
from parity.pipeline.evaluation import score
from parity.retrieval import prompts
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter as adapters
from parity.run import digest, files
from parity.run.config.run_file import Config

_PLACES = ("data.source", "encoder.base")


@dataclass(frozen=True, slots=True)
class SavedEpoch:
    """One finished epoch.

    Attributes:
        number: from 1.
        step: optimizer steps done at its end.
        scores: on the valid side; None where the split has none.
    """

    number: int
    step: int
    scores: Scores | None

    @property
    def value(self) -> float:
        """Return what epochs are chosen by: the projection, or MAP where there is none."""
        if self.scores is None:
            return float(self.number)  # nothing was scored: the last one
        judged = self.scores.projection or self.scores.all.map
        return judged.value if judged else 0.0

    @property
    def line(self) -> str:
        """One line for a person."""
        if self.scores is None or self.scores.all.map is None:
            return f"epoch {self.number}: step {self.step}, saved; the split has nothing to score"
        projection = self.scores.projection
        told = f"{projection.value:.4f}" if projection else "-"
        return (
            f"epoch {self.number}: step {self.step}, MAP@{self.scores.k} "
            f"{self.scores.all.map.value:.4f}, projection {told}"
        )


def save(
    encoder: Encoder,
    config: Config,
    known: Dataset,
    folder: Path,
    *,
    epoch: SavedEpoch,
    lineage: Lineage,
) -> SavedEpoch:
    """Save the adapter of an epoch, score it, and keep its probe embeddings.

    Args:
        encoder: as trained so far; every process takes part, the main one writes.
        config: the resolved run.
        known: the competition.
        folder: the stage's.
        epoch: number and step; its scores are filled in.
        lineage: what the adapter is trained on.
    """
    scored = score(encoder, config, known)
    done = SavedEpoch(epoch.number, epoch.step, scored.scores)
    if encoder.workers.main:
        saved = adapters.save(
            encoder.model,
            folder / f"epoch-{epoch.number}",
            encoder.base,
            layers=encoder.config.num_layers,
            template=prompts.template_digest(config.prompt),
            beside={"lineage.json": lineage.as_json(), "run.json": frozen(config)},
        )
        files.write_array(folder / f"probe-{epoch.number}.npy", scored.probed.found.vectors)
        if scored.ranking is not None:
            rankings.write(folder / f"ranking-{epoch.number}.jsonl", scored.ranking)
        record = {
            "step": epoch.step,
            "scores": scored.scores.as_json() if scored.scores else None,
            "layers": {**scored.probed.layers, "adapter": saved.weights},
        }
        path = folder / f"epoch-{epoch.number}.json"
        files.remove(path)  # one that was changed since
        made = digest.of_tree(folder, outputs(folder, epoch.number))
        sealed = {**record, "files": made, "digest": digest.of_value([record, made])}
        files.write_json(path, sealed)
    encoder.workers.wait()
    return done


def read(folder: Path, number: int) -> SavedEpoch | None:
    """Return a finished epoch, or None where it is not whole or was changed since."""
    path = folder / f"epoch-{number}.json"
    if not path.is_file():
        return None
    sealed = files.read_json(path)
    record = {key: sealed.get(key) for key in ("step", "scores", "layers")}
    made = sealed.get("files", {})
    there = [name for name in made if (folder / name).is_file()]
    if digest.of_value([record, digest.of_tree(folder, there)]) != sealed.get("digest"):
        return None
    scores = Scores.from_json(record["scores"]) if record["scores"] else None
    return SavedEpoch(number, record["step"], scores)


def outputs(folder: Path, number: int) -> list[str]:
    """Return the names of the files an epoch left, relative to `folder`."""
    names = [f"epoch-{number}.json", f"probe-{number}.npy", f"ranking-{number}.jsonl"]
    inside = sorted((folder / f"epoch-{number}").iterdir())
    return [
        *(name for name in names if (folder / name).is_file()),
        *(path.relative_to(folder).as_posix() for path in inside),
    ]


def verdict(
    folder: Path, config: Config, known: Dataset, best: SavedEpoch, last: SavedEpoch
) -> str:
    """Say whether the best epoch is shown to be better than the last, by a paired bootstrap."""
    if best.number == last.number or best.scores is None:
        return f"epoch {best.number} is the best"
    one, other = (rankings.read(folder / f"ranking-{e.number}.jsonl") for e in (best, last))
    found = compare(
        one, other, known.valid_qrels, known.split.unseen, config.scoring, k=best.scores.k
    )
    told = found.verdict.replace("a is", f"epoch {best.number} is")
    return f"epoch {best.number} has the best projection; against epoch {last.number}: {told}"


def flat(config: Config) -> dict[str, str | int | float | bool]:
    """Return the resolved config as `section.key` → value, for a tracker."""
    return {
        f"{section}.{key}": value if isinstance(value, str | int | float | bool) else str(value)
        for section, values in frozen(config).items()
        if isinstance(values, dict)
        for key, value in values.items()
    }


def frozen(config: Config) -> dict[str, Any]:
    """Return the resolved config as plain values, less where this machine keeps its files."""
    plain = config.model_dump(mode="json")
    plain["data"]["source"] = ""
    del plain["shipping"]  # how it travels is no part of what an adapter is
    plain["encoder"]["parallelism"] = "queries"
    plain["encoder"]["base"] = encoder_loading.portable(config.encoder.base)
    kept = [
        override
        for override in config.overrides
        if override.partition("=")[0].strip() not in _PLACES
    ]
    plain["overrides"] = kept
    return plain
