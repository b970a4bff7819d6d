"""Every error the tool raises on purpose: one line each, with the command that mends it."""


class ParityError(Exception):
    """Base of all expected errors; the message is one line for a person.

    `exit_code` is what the command line returns for the class.
    """

    exit_code = 1


class BadConfig(ParityError):
    """A run file or an override is wrong."""

    exit_code = 2


class BadData(ParityError):
    """A competition file is wrong; the message names file, row and column."""

    exit_code = 3


class StaleInput(ParityError):
    """A stage's input is missing or was made from something else; names the command to run."""

    exit_code = 4


class Contaminated(ParityError):
    """A score was asked for rows the adapter was trained on, or its lineage is unknown."""

    exit_code = 5


class Mismatch(ParityError):
    """Two things that must be equal (digests, embeddings, weights, rows) are not."""

    exit_code = 6


class KaggleRejected(ParityError):
    """Kaggle said no: nothing was changed there; the message has its words."""

    exit_code = 7


class OutcomeUnknown(ParityError):
    """Kaggle may or may not have taken it, or has not ended in time; the same command finds out."""

    exit_code = 8


class RunFailed(ParityError):
    """Kaggle ran it, and the kernel or the submission ended in an error."""

    exit_code = 9


class ResultsDiffer(ParityError):
    """Two measurements differ by more than noise; the message names the first layer that does."""

    exit_code = 10
