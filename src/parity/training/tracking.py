"""Report a training's numbers to a tracker, by accelerate's own classes; none is the default.

Keys are each tracker's own affair (environment, netrc): nothing here reads or writes one.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parity.run.config.run_file import TrainingConfig
from parity.run.errors import BadConfig

Log = Callable[[dict[str, float], int], None]
"""Values and the step they belong to."""
Close = Callable[[], None]

_PROJECT = "kaggle-parity"


def open_tracker(
    config: TrainingConfig, folder: Path, settings: dict[str, Any], *, main: bool
) -> tuple[Log, Close]:
    """Return how to log and how to end; both do nothing without a tracker or beside the main.

    Args:
        config: names the tracker.
        folder: where trackers that write files write them.
        settings: plain values shown beside the curves.
        main: whether this process reports.

    Raises:
        BadConfig: the tracker's package is not installed.
    """
    if config.tracker == "none" or not main:
        return _ignore, _nothing
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))
    os.environ.setdefault("WANDB_DIR", str(folder.resolve()))
    # Imported here: each pulls in its package, and most trainings have none.
    from accelerate import PartialState, tracking  # noqa: PLC0415

    PartialState()  # the classes ask it who the main process is
    if config.tracker == "tensorboard":
        tracker: Any = tracking.TensorBoardTracker(_PROJECT, logging_dir=folder)
    else:
        kind = {"trackio": tracking.TrackioTracker, "wandb": tracking.WandBTracker}
        tracker = kind[config.tracker](_PROJECT)
    try:
        tracker.start()
    except ImportError as error:
        raise BadConfig(
            f"training.tracker = {config.tracker!r}: the package is not installed; "
            f"run: pip install {config.tracker}"
        ) from error
    tracker.store_init_configuration(settings)
    return (lambda values, step: tracker.log(values, step=step)), tracker.finish


def _ignore(_: dict[str, float], __: int) -> None:
    """Log to nowhere."""


def _nothing() -> None:
    """Have nothing to close."""
