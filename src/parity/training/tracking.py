"""Experiment trackers for training, through the classes of accelerate. The default is none.

API keys are read by the trackers themselves (environment, netrc), never by this module.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parity.run.config.training import TrainingConfig
from parity.run.errors import BadConfig

Log = Callable[[dict[str, float], int], None]
"""Function that logs values for a step."""
Close = Callable[[], None]

_PROJECT = "kaggle-parity"


def open_tracker(
    config: TrainingConfig, folder: Path, settings: dict[str, Any], *, main: bool
) -> tuple[Log, Close]:
    """Return functions to log and to close; both do nothing without a tracker or in other ranks.

    Args:
        config: training settings with the name of the tracker.
        folder: folder for trackers that write files.
        settings: name → value of the run's settings, shown with the curves.
        main: whether this is the main process, which logs.

    Raises:
        BadConfig: the package of the tracker is not installed.
    """
    if config.tracker == "none" or not main:
        return _ignore, _nothing
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))
    os.environ.setdefault("WANDB_DIR", str(folder.resolve()))
    # Imported here: each class imports its package, and most runs have no tracker.
    from accelerate import PartialState, tracking  # noqa: PLC0415

    PartialState()  # the classes read the main process from it
    if config.tracker == "tensorboard":
        tracker: Any = tracking.TensorBoardTracker(_PROJECT, logging_dir=folder)
    else:
        kind = {"trackio": tracking.TrackioTracker, "wandb": tracking.WandBTracker}
        tracker = kind[config.tracker](_PROJECT)
    try:
        tracker.start()
    except ImportError as error:
        raise BadConfig(
            f"training.tracker = {config.tracker!r}: the package is not installed. Install it with "
            f"pip install {config.tracker}"
        ) from error
    tracker.store_init_configuration(settings)
    return (lambda values, step: tracker.log(values, step=step)), tracker.finish


def _ignore(_: dict[str, float], __: int) -> None:
    """Ignore the values."""


def _nothing() -> None:
    """Do nothing: no tracker is open."""
