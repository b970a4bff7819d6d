"""Section `[data]`: the competition's files."""

from parity.run.config.section import Section


class DataConfig(Section):
    """Where the competition's files are and which license they have."""

    source: str = "data/synthetic"
    """Folder with the competition's files, such as train.csv and test.csv."""
    competition: str = "synthetic-buggy-rules"
    """Slug of the competition on Kaggle."""
    license: str = ""
    """License that allows redistribution of the texts; empty means that texts stay local."""
