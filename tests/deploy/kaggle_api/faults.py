"""`docs/faults.md`: each fault on the way to Kaggle, what is told, and that a second run completes.

`python tests/deploy/kaggle_api/faults.py` writes it anew; test_faults.py proves every row.
"""

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import pytest
from deploy.kaggle_api import end_to_end
from deploy.kaggle_api.end_to_end import Voyage
from kagglestandin_faults import CATALOGUE
from kagglestandin_server import StandIn

from parity.run import files
from parity.run.errors import ParityError

TABLE = Path(__file__).parents[3] / "docs" / "faults.md"
HEAD = """\
# What goes wrong on the way to Kaggle, and what you are told

Made by `python tests/deploy/kaggle_api/faults.py`; every row is a test. Each fault was put
between the real client and a stand-in for Kaggle, once, while an adapter went all the way: three
datasets' worth of calls, the kernel, its output, the submission, its score. *Exit* is the first
run's code (0: it went on by itself), *told* its one line. After each, Kaggle held no version,
kernel or submission twice and no file cut short; then the fault was taken away and
**the same commands completed**.

| exit | means |
| --- | --- |
| 6 | a check failed here: what Kaggle holds is not what was sent |
| 7 | Kaggle said no; nothing was changed there |
| 8 | the outcome is not known, or not yet; the same command looks before it repeats anything |
| 9 | Kaggle ran it, and it failed |

| fault | what happens | exit | told |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a first run under a fault came to.

    Attributes:
        exit: its exit code.
        told: its one line; empty where it went on by itself.
    """

    exit: int
    told: str = ""

    @property
    def cells(self) -> str:
        told = re.sub(r"\b[0-9a-f]{8}\b", "BUNDLE", self.told).replace("|", "/")
        return f"{self.exit} | {told}"


def under(name: str, folder: Path) -> Outcome:
    """Sail once under a fault, check what Kaggle holds, then once without it.

    Raises:
        AssertionError: something is doubled or cut short, or the second run does not complete.
    """
    with StandIn(end_to_end.harbour()) as standin:
        way = Voyage(standin, folder)
        standin.inject(name)
        outcome = Outcome(0)
        try:
            way.sail()
        except ParityError as error:
            outcome = Outcome(error.exit_code, end_to_end.plain(str(error)))
        standin.check()
        standin.calm()
        assert way.sail().public == end_to_end.SCORE
        standin.check()
        before = len(standin.calls)
        assert way.sail().public == end_to_end.SCORE  # a third time: only questions
        changed = {call.place for call in standin.calls[before:]} & set(CHANGES)
        assert not changed, changed
        return outcome


CHANGES = (
    *("StartBlobUpload", "PUT", "CreateDataset", "CreateDatasetVersion"),
    *("SaveKernel", "CreateCodeSubmission"),
)


def row(name: str, outcome: Outcome) -> str:
    """Return a fault's line in the table."""
    return f"| `{name}` | {CATALOGUE[name].says} | {outcome.cells} |"


def main() -> None:
    """Write the table."""
    with pytest.MonkeyPatch.context() as patch:
        end_to_end.hurried(patch)
        rows = []
        for name in CATALOGUE:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(row(name, under(name, Path(folder))))
    files.write_text(TABLE, HEAD + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
