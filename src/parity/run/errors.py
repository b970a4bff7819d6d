"""Expected errors, each with an exit code of the command line.

ParityError (1)
├── BadConfig (2)        a run file or an override is wrong
├── BadData (3)          a competition file is wrong
├── StaleInput (4)       an input is missing or out of date
├── Contaminated (5)     a score on rows the adapter was trained on
├── Mismatch (6)         two things that must be equal differ
├── KaggleRejected (7)   Kaggle refused the request; nothing changed there
├── OutcomeUnknown (8)   the request may or may not have succeeded
├── RunFailed (9)        the kernel or the submission ended in an error
├── ResultsDiffer (10)   two measurements differ by more than noise
└── NotFinite (11)       a loss, a gradient or an embedding is NaN or infinite
"""


class ParityError(Exception):
    """An expected error: one line that says what is wrong and where.

    Attributes:
        fix: the command that fixes it, verb first, without program, run file or overrides, which
            the command line adds; empty where no command does.
    """

    exit_code = 1

    def __init__(self, message: str, *, fix: tuple[str, ...] = ()) -> None:
        """Keep the message and the words of the command that fixes it."""
        super().__init__(message)
        self.fix = fix


class BadConfig(ParityError):
    """A run file or an override is wrong."""

    exit_code = 2


class BadData(ParityError):
    """A competition file is wrong; the message names file, row and column."""

    exit_code = 3


class StaleInput(ParityError):
    """An input of a stage is missing or out of date; `fix` makes it."""

    exit_code = 4


class Contaminated(ParityError):
    """A score on rows that the adapter was trained on, or whose lineage is unknown."""

    exit_code = 5


class Mismatch(ParityError):
    """Two things that must be equal (digests, embeddings, weights, rows) differ."""

    exit_code = 6


class KaggleRejected(ParityError):
    """Kaggle refused a request and changed nothing; the message quotes the reply."""

    exit_code = 7


class OutcomeUnknown(ParityError):
    """A request may or may not have succeeded, or timed out; repeating the command finds out."""

    exit_code = 8


class RunFailed(ParityError):
    """The kernel or the submission ended in an error on Kaggle."""

    exit_code = 9


class ResultsDiffer(ParityError):
    """Two measurements differ by more than noise; the message names the first layer that does."""

    exit_code = 10


class NotFinite(ParityError):
    """A loss, a gradient or an embedding is NaN or infinite; the message names step or row."""

    exit_code = 11
