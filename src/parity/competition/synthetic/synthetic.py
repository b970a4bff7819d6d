"""The project's own competition: the schema of Eedi with texts under CC0."""

from parity.competition.eedi.eedi import Eedi


class Synthetic(Eedi):
    """Buggy rules of arithmetic and algebra; `generator` writes its files."""
