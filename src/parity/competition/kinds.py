"""The kinds of competition that a run file can name."""

from parity.competition.base import Competition
from parity.competition.eedi.eedi import Eedi
from parity.competition.synthetic.synthetic import Synthetic
from parity.competition.table.table import TableCompetition
from parity.run.config.competition import CompetitionConfig


def competition_of(config: CompetitionConfig) -> Competition:
    """Return the competition that a run file describes."""
    if config.kind == "table":
        return TableCompetition(config)
    return Synthetic() if config.kind == "synthetic" else Eedi()
