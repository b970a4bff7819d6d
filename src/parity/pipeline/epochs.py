"""Outputs of each training epoch: the adapter, its scores and its probe embeddings.

`epoch-N.json` is written last and holds the digests of the other files, which shows that an epoch
is complete. A complete epoch is never changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage
from parity.competition.ranking import Ranking
from parity.competition.scoring.bootstrap import Interval
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

_PATH_KEYS = ("data.source", "encoder.base")


@dataclass(frozen=True, slots=True)
class SavedEpoch:
    """One finished epoch.

    Attributes:
        number: number of the epoch, from 1.
        step: number of optimizer steps at its end.
        scores: scores of the validation set; None if the split has no validation set.
    """

    number: int
    step: int
    scores: Scores | None

    @property
    def value(self) -> float:
        """Return the value to choose epochs by: the projection, else the score of all rows."""
        if self.scores is None:
            return float(self.number)  # without scores the last epoch is chosen
        estimate = self.scores.projection or self.scores.all.score
        return estimate.value if estimate else 0.0

    @property
    def line(self) -> str:
        """Return the epoch's line of output."""
        if self.scores is None or self.scores.all.score is None:
            return f"epoch {self.number}: step {self.step}, saved; the split has nothing to score"
        projection = self.scores.projection
        projected = f"{projection.value:.4f}" if projection else "-"
        return (
            f"epoch {self.number}: step {self.step}, {self.scores.metric.title} "
            f"{self.scores.all.score.value:.4f}, projection {projected}"
        )


def save(
    encoder: Encoder,
    config: Config,
    data: Dataset,
    folder: Path,
    *,
    epoch: SavedEpoch,
    lineage: Lineage,
) -> SavedEpoch:
    """Save the adapter of an epoch, score it, and store its probe embeddings.

    Args:
        encoder: encoder as trained so far; every process takes part, only the main one writes.
        config: resolved config.
        data: dataset of the competition.
        folder: folder of the stage.
        epoch: number and step; scores are added.
        lineage: questions the adapter is trained on.
    """
    scored = score(encoder, config, data)
    done = SavedEpoch(epoch.number, epoch.step, scored.scores)
    if encoder.workers.is_main:
        saved = adapters.save(
            encoder.model,
            folder / f"epoch-{epoch.number}",
            encoder.base,
            layers=encoder.config.num_layers,
            template=prompts.template_digest(config.prompt),
            extra_files={"lineage.json": lineage.as_json(), "run.json": frozen(config)},
        )
        files.write_array(folder / f"probe-{epoch.number}.npy", scored.probed.retrieval.vectors)
        if scored.ranking is not None:
            rankings.write(folder / f"ranking-{epoch.number}.jsonl", scored.ranking)
        record = {
            "step": epoch.step,
            "scores": scored.scores.as_json() if scored.scores else None,
            "layers": {**scored.probed.layers, "adapter": saved.digest()},
        }
        path = folder / f"epoch-{epoch.number}.json"
        files.remove(path)  # it may be of a changed epoch
        digests = digest.of_tree(folder, outputs(folder, epoch.number))
        sealed = {**record, "files": digests, "digest": digest.of_value([record, digests])}
        files.write_json(path, sealed)
    encoder.workers.wait()
    return done


def read(folder: Path, number: int) -> SavedEpoch | None:
    """Return a finished epoch, or None if it is incomplete or was changed."""
    path = folder / f"epoch-{number}.json"
    if not path.is_file():
        return None
    sealed = files.read_json(path)
    record = {key: sealed.get(key) for key in ("step", "scores", "layers")}
    digests = sealed.get("files", {})
    names = [name for name in digests if (folder / name).is_file()]
    if digest.of_value([record, digest.of_tree(folder, names)]) != sealed.get("digest"):
        return None
    scores = Scores.from_json(record["scores"]) if record["scores"] else None
    return SavedEpoch(number, record["step"], scores)


def outputs(folder: Path, number: int) -> list[str]:
    """Return the names of an epoch's files, relative to `folder`."""
    names = [f"epoch-{number}.json", f"probe-{number}.npy", f"ranking-{number}.jsonl"]
    paths = sorted((folder / f"epoch-{number}").iterdir())
    return [
        *(name for name in names if (folder / name).is_file()),
        *(path.relative_to(folder).as_posix() for path in paths),
    ]


def describe_best(
    folder: Path, config: Config, data: Dataset, best: SavedEpoch, last: SavedEpoch
) -> str:
    """Return whether the best epoch is better than the last one, by a paired bootstrap."""
    if best.number == last.number or best.scores is None:
        return f"epoch {best.number} is the best"
    best_ranking, last_ranking = (
        rankings.read(folder / f"ranking-{e.number}.jsonl") for e in (best, last)
    )
    result = compare(
        best_ranking,
        last_ranking,
        data.valid_qrels,
        data.split.unseen,
        config.scoring,
        best.scores.metric,
    )
    conclusion = result.result.replace("a is", f"epoch {best.number} is")
    return f"epoch {best.number} has the best projection; against epoch {last.number}: {conclusion}"


def describe_loss(
    folder: Path,
    config: Config,
    data: Dataset,
    done: Sequence[SavedEpoch],
    best: SavedEpoch,
    base: Ranking,
) -> str:
    """Return a warning if the best epoch ranks unseen labels worse than the base model; else empty.

    Args:
        folder: folder of the stage.
        config: resolved config.
        data: dataset with the validation set.
        done: finished epochs.
        best: the chosen one.
        base: the base model's ranking of the validation set.
    """
    gains: dict[int, Interval] = {}
    for epoch in done:
        ranking = rankings.read(folder / f"ranking-{epoch.number}.jsonl")
        gain = compare(
            ranking, base, data.valid_qrels, data.split.unseen, config.scoring, data.metric
        ).unseen
        if gain is not None:
            gains[epoch.number] = gain
    gain = gains.get(best.number)
    if gain is None or gain.value >= 0:
        return ""
    other = max(gains, key=lambda number: gains[number].value)
    advice = (
        f"epoch {other} is {gains[other].value:+.4f}: --model epoch-{other} on predict and package"
        if gains[other].value >= 0
        else "so is every other epoch; fewer epochs or a lower training.learning_rate lose less"
    )
    return (
        f"warning: on unseen labels epoch {best.number} is {-gain.value:.4f} below the base model "
        f"(95 % {gain.low:+.4f} to {gain.high:+.4f}); {advice}"
    )


def flat(config: Config) -> dict[str, str | int | float | bool]:
    """Return the resolved config as `section.key` → value, for a tracker."""
    return {
        f"{section}.{key}": value if isinstance(value, str | int | float | bool) else str(value)
        for section, values in frozen(config).items()
        if isinstance(values, dict)
        for key, value in values.items()
    }


def frozen(config: Config) -> dict[str, Any]:
    """Return the resolved config as plain values, without local paths."""
    plain = config.model_dump(mode="json")
    plain["data"]["source"] = ""
    for section in ("shipping", "evaluations"):  # they do not change the adapter
        del plain[section]
    plain["encoder"]["parallelism"] = "queries"
    plain["encoder"]["base"] = encoder_loading.portable_name(config.encoder.base)
    overrides = [
        override
        for override in config.overrides
        if override.partition("=")[0].strip() not in _PATH_KEYS
    ]
    plain["overrides"] = overrides
    return plain
