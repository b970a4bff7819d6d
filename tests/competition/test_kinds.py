"""The kinds of competition and their interfaces."""

import pytest

from parity.competition.eedi.eedi import Eedi
from parity.competition.kinds import competition_of
from parity.competition.scoring.row_metrics import Metric
from parity.competition.synthetic.synthetic import Synthetic
from parity.competition.table.table import TableCompetition
from parity.run.config import run_file
from parity.run.config.competition import CompetitionConfig
from parity.run.errors import BadConfig


def test_a_run_file_without_a_competition_is_of_eedi_s_schema() -> None:
    assert type(competition_of(CompetitionConfig())) is Eedi


def test_the_synthetic_competition_has_the_interface_of_eedi() -> None:
    competition = competition_of(CompetitionConfig(kind="synthetic"))
    assert type(competition) is Synthetic
    assert (competition.files, competition.metric) == (Eedi.files, Metric("map", 25))


def test_a_table_takes_everything_from_its_section() -> None:
    config = CompetitionConfig(
        kind="table",
        query_texts=("title", "body"),
        groups=("topic",),
        k=10,
        metric="fbeta",
        beta=2.0,
        count=5,
        submission="answers.csv",
        submission_columns=("id", "answers"),
        submission_format="comma",
    )
    competition = competition_of(config)
    assert isinstance(competition, TableCompetition)
    assert competition.files == ("test.csv", "queries.csv", "corpus.csv", "labels.csv")
    assert (competition.fields, competition.required_field) == (("title", "body"), "title")
    assert competition.groups == ("topic",)
    assert competition.metric == Metric("fbeta", 10, beta=2.0, count=5)
    form = competition.submission
    assert (form.file, form.columns, form.separator) == ("answers.csv", ("id", "answers"), ",")


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"kind": "eedi", "k": 10}, "k is for kind 'table', not for 'eedi'"),
        ({"kind": "table", "count": 30}, "count = 30 is above k = 25"),
        ({"kind": "table", "query_texts": []}, "need at least one column"),
        ({"kind": "table", "test": "queries.csv"}, "is also another file of the competition"),
        ({"kind": "table", "metric": "ndcg"}, "competition.metric"),
        ({"kind": "table", "submission": "a/b.csv"}, "competition.submission"),
    ],
)
def test_a_section_that_contradicts_itself_is_refused_in_one_line(
    section: dict[str, object], problem: str
) -> None:
    with pytest.raises(BadConfig) as error:
        run_file.build({"name": "x", "competition": section}, "x.toml")
    message = str(error.value)
    assert message.startswith("x.toml: competition")
    assert problem in message
    assert "\n" not in message
