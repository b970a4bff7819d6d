"""Section `[competition]`: the kind of competition and, for `table`, its files and its metric."""

from typing import Literal

from pydantic import Field, model_validator

from parity.run.config.section import Section


class CompetitionConfig(Section):
    """What the competition's files hold and how its submission is scored.

    Every key after `kind` describes a competition of kind `table`; the others have their own.
    """

    kind: Literal["eedi", "synthetic", "table"] = "eedi"
    """Reader of the files: `eedi` and `synthetic` (Kaggle's four files of the Eedi competition), or
    `table` (any CSV files, described by the keys below)."""
    queries: str = "queries.csv"
    """File of the labeled queries, one query a row."""
    test: str = "test.csv"
    """File of the queries to predict, with the columns of `queries`."""
    corpus: str = "corpus.csv"
    """File of the passages; may be the file of `queries`."""
    labels: str = "labels.csv"
    """File of the labels; may be the file of `queries`."""
    query_id: str = "query_id"
    """Column with the id of a query, in `queries`, `test` and `labels`."""
    passage_id: str = "passage_id"
    """Column with the id of a passage, in `corpus`."""
    label: str = "passage_id"
    """Column with the ids of the right passages, in `labels`; an empty cell has no label."""
    label_separator: str = ""
    """Separator of several ids in one cell of `label`; empty means one id in a cell."""
    unit: str = ""
    """Column of `queries` and `test` with the id of what a split never cuts; empty means that each
    query stands alone."""
    groups: tuple[str, ...] = ()
    """Columns of `queries` and `test` that a split can keep whole (`split.kind`); the first one is
    the topic in tables."""
    query_texts: tuple[str, ...] = ("text",)
    """Columns with the texts of a query, the fields of `prompt.query`; a prompt that is too long
    loses the tail of the last one first, and the template must name the first one."""
    passage_texts: tuple[str, ...] = ("text",)
    """Columns with the texts of a passage, joined by newlines to the field of `prompt.passage`."""
    query_order: Literal["text", "number"] = "text"
    """Order of query ids: as text, or as whole numbers."""
    passage_order: Literal["text", "number"] = "text"
    """Order of passage ids: as text, or as whole numbers; equal scores go to the first passage."""
    k: int = Field(25, ge=1)
    """Number of passages in a row of the submission."""
    metric: Literal["map", "recall", "mrr", "fbeta"] = "map"
    """Metric of the leaderboard, of the first `k` passages."""
    beta: float = Field(1.0, gt=0.0)
    """Weight of recall in `fbeta`."""
    threshold: float = Field(0.0, ge=-1.0, le=1.0)
    """Cosine from which `fbeta` predicts a passage; the best one is always predicted."""
    count: int = Field(0, ge=0)
    """Number of passages that `fbeta` predicts for each query; 0 means by `threshold`."""
    submission: str = Field("submission.csv", pattern=r"^[\w.-]+\.csv$")
    """Name of the submission file."""
    submission_columns: tuple[str, str] = ("query_id", "passage_ids")
    """Columns of the submission: query id and predicted ids."""
    submission_format: Literal["space", "comma", "rows"] = "space"
    """Ids in a submission: in one cell, separated by a space or a comma, or one row for each."""

    @model_validator(mode="after")
    def _only_tables_are_described(self) -> "CompetitionConfig":
        if self.kind != "table" and (extra := sorted(self.model_fields_set - {"kind"})):
            changed = [
                name
                for name in extra
                if getattr(self, name) != type(self).model_fields[name].default
            ]
            if changed:
                raise ValueError(f"{changed[0]} is for kind 'table', not for {self.kind!r}")
        if self.count > self.k:
            raise ValueError(f"count = {self.count} is above k = {self.k}")
        if self.test in (self.queries, self.corpus, self.labels):
            raise ValueError(f"test = {self.test!r} is also another file of the competition")
        if not self.query_texts or not self.passage_texts:
            raise ValueError("query_texts and passage_texts need at least one column")
        return self
