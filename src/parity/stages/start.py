"""From the words of the command line to the one function of a stage."""

import argparse
import importlib

from parity.stages.run import Run, open_run


def start(asked: argparse.Namespace) -> None:
    """Start the stage or tool that was asked for.

    Each is imported only when it is the one: a story needs no torch, and loads in a moment.
    """
    sets = tuple(asked.overrides)
    if asked.stage == "story":
        from parity.stages.story import story  # noqa: PLC0415

        story(asked.run, sets)
    elif asked.stage == "demo":
        from parity.stages.demo import demo  # noqa: PLC0415

        demo(asked.data, quick=asked.quick, overrides=sets)
    else:
        _stage(asked, open_run(asked.run, sets, asked.round))


def _stage(asked: argparse.Namespace, run: Run) -> None:
    if asked.stage == "mine":
        from parity.stages.mine import mine  # noqa: PLC0415

        mine(run, asked.imported)
    elif asked.stage == "eval":
        from parity.stages.evaluate import evaluate  # noqa: PLC0415

        evaluate(run, asked.adapter, against=asked.against, accept_polluted=asked.accept_polluted)
    elif asked.stage == "reload":
        from parity.stages.roundtrip import reload  # noqa: PLC0415

        reload(run, asked.out)
    else:
        getattr(importlib.import_module(f"parity.stages.{asked.stage}"), asked.stage)(run)
