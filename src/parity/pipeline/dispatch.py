"""From the words of the command line to the one function of a stage."""

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

from parity.run.experiment import Run, open_run

_STAGES = frozenset(
    ("prepare", "mine", "train", "evaluate", "predict", "package")
    + ("rehearse", "publish", "push", "follow", "submit", "reconcile")
)


def start(asked: argparse.Namespace, words: Sequence[str]) -> Any:
    """Start the stage or tool that was asked for; return what `--json` prints.

    Each is imported only when it is the one: a story needs no torch, and loads in a moment.

    Args:
        asked: the words, parsed.
        words: the words, for what starts them anew inside the image.
    """
    sets = tuple(asked.overrides) if "overrides" in asked else ()
    if asked.stage in _ALONE:
        return _ALONE[asked.stage](asked, sets)
    if asked.stage == "reconcile" and asked.attribute:
        return _of("attribute").attribute(asked.sides)
    if asked.stage == "reconcile" and (asked.sides or asked.imported):
        return _of("reconcile").reconcile(
            asked.sides, imported=asked.imported, with_text=asked.with_text
        )
    if asked.stage == "forecast" and (asked.golden or asked.judge):
        return _of("forecast").backtest() if asked.golden else _of("forecast").judge()
    run = open_run(asked.run, sets, asked.round)
    if getattr(asked, "where", "here") == "image" and asked.stage != "rehearse":
        return _of("run_in_image").inside(run, words)
    return _STARTS.get(asked.stage, _stage)(asked, run)


def _of(stage: str) -> Any:
    folder = ".stage_cores" if stage in _STAGES else "" if stage == "reload_check" else ".command_cores"
    return importlib.import_module(f"parity.pipeline{folder}.{stage}")


def _story(asked: argparse.Namespace, sets: tuple[str, ...]) -> Any:
    return _of("status").story(asked.run, sets)


def _demo(asked: argparse.Namespace, sets: tuple[str, ...]) -> Any:
    return _of("demo").demo(asked.data, quick=asked.quick, overrides=sets)


def _lock(asked: argparse.Namespace, _: tuple[str, ...]) -> Any:
    told = {"git_commit": asked.git_commit, "build_date": asked.build_date}
    return _of("image").lock(asked.freeze, told)


def _advise(asked: argparse.Namespace, _: tuple[str, ...]) -> Any:
    return _of("advise").advise(asked.log)


def _stage(asked: argparse.Namespace, run: Run) -> Any:
    return getattr(_of(asked.stage), asked.stage)(run)


def _mine(asked: argparse.Namespace, run: Run) -> Any:
    return _of("mine").mine(run, asked.imported)


def _eval(asked: argparse.Namespace, run: Run) -> Any:
    return _of("evaluate").evaluate(
        run, asked.adapter, against=asked.against, accept_contaminated=asked.accept_contaminated
    )


def _reload(asked: argparse.Namespace, run: Run) -> Any:
    return _of("reload_check").reload(run, asked.out)


def _rehearse(asked: argparse.Namespace, run: Run) -> Any:
    if asked.image or asked.where == "image":
        return _of("rehearse_image").rehearse_image(run)
    return _of("rehearse").rehearse(run)


def _publish(asked: argparse.Namespace, run: Run) -> Any:
    what = "base" if asked.base else "bundle"
    return (_of("publish").show if asked.dry_run else _of("publish").publish)(run, what)


def _push(asked: argparse.Namespace, run: Run) -> Any:
    if asked.dry_run:
        return _of("push").show(run, asked.form)
    return _of("push").push(run, asked.form, risk=asked.accept_risk)


def _follow(asked: argparse.Namespace, run: Run) -> Any:
    return _of("follow").follow(run, asked.minutes)


def _submit(asked: argparse.Namespace, run: Run) -> Any:
    return (_of("submit").show if asked.dry_run else _of("submit").submit)(run)


def _plan(asked: argparse.Namespace, run: Run) -> Any:
    if asked.device == "here":
        return _of("local_plan").here(run)
    return _of("plan").plan(run, device=asked.device, queries=asked.queries)


def _reconcile(asked: argparse.Namespace, run: Run) -> Any:
    return _of("reconcile").latest(run, with_text=asked.with_text)


def _forecast(asked: argparse.Namespace, run: Run) -> Any:
    return _of("forecast").forecast(run, asked.adapter)


def _report(asked: argparse.Namespace, run: Run) -> Any:
    return _of("report").report(run, with_text=asked.with_text)


def _doctor(asked: argparse.Namespace, run: Run) -> Any:
    return _of("doctor").doctor(run, "online" if asked.online else "offline")


def _image(asked: argparse.Namespace, run: Run) -> Any:
    return _of("image").build(run, asked.base)


_ALONE = {"story": _story, "demo": _demo, "image.lock": _lock, "advise": _advise}
"""What is started without a run file, or with one at most."""
_STARTS = {
    "mine": _mine,
    "eval": _eval,
    "reload": _reload,
    "rehearse": _rehearse,
    "publish": _publish,
    "push": _push,
    "follow": _follow,
    "submit": _submit,
    "plan": _plan,
    "reconcile": _reconcile,
    "forecast": _forecast,
    "report": _report,
    "doctor": _doctor,
    "image": _image,
}
