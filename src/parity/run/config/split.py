"""Section `[split]`: train and validation set."""

from pydantic import Field, model_validator

from parity.run.config.section import Section

KINDS = ("random", "random-full", "label", "unseen", "full")
"""Kinds of split that every competition has; any other kind is a kind of group."""


class SplitConfig(Section):
    """How labeled questions are split into a train and a validation set."""

    kind: str = Field("unseen", pattern=r"^[\w-]+$")
    """Assignment of units to train and validation: `random`; `random-full` (only units with all
    rows labeled are validated); `label` (no label in both sets); `unseen` (a target share of unseen
    labels); the name of a group of the competition, such as `subject` (no group in both sets);
    `full` trains on all rows and has no validation set."""
    seed: int = 0
    """Random seed of the split."""
    valid: float = Field(0.2, gt=0.0, lt=1.0)
    """Share of labeled rows in the validation set, 0 to 1; ignored with `folds`."""
    unseen: float = Field(0.75, ge=0.0, le=1.0)
    """Target share of validation rows whose label never occurs in train, 0 to 1 (kind `unseen`)."""
    folds: int = Field(0, ge=0)
    """Number of folds; 0 means one split by share."""
    fold: int = Field(0, ge=0)
    """Index of the fold that is the validation set, from 0."""

    @property
    def is_by_group(self) -> bool:
        """Return whether the split keeps groups of the competition whole.

        >>> SplitConfig(kind="construct").is_by_group
        True
        """
        return self.kind not in KINDS

    @property
    def name(self) -> str:
        """Return the name of the split, which is also the name of its file.

        >>> SplitConfig(kind="unseen", unseen=0.75, seed=3).name
        'unseen-0.75-s3'
        >>> SplitConfig(kind="construct", folds=5, fold=1).name
        'construct-s0-f1of5'
        """
        if self.kind == "full":
            return "full"
        kind = f"unseen-{self.unseen:g}" if self.kind == "unseen" else self.kind
        fold = f"-f{self.fold}of{self.folds}" if self.folds else ""
        share = "" if self.folds or self.valid == 0.2 else f"-v{self.valid:g}"
        return f"{kind}-s{self.seed}{share}{fold}"

    @model_validator(mode="after")
    def _fold_exists(self) -> "SplitConfig":
        if self.folds == 1 or self.fold >= max(self.folds, 1):
            raise ValueError(f"fold {self.fold} of {self.folds} does not exist")
        return self
