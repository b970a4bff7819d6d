"""Kaggle's mount layouts: the folder of an attached dataset, competition or model by its name.

A dataset is `owner/slug`, a competition its slug, a model `owner/model/framework/variation/N`.
The kernel does not depend on a layout, so that a new one does not break it. The rehearsal uses two
of them.

Source: reports from 2024 to 2026. `models/` with and without its owner is unconfirmed.
"""

from collections.abc import Callable
from pathlib import PurePosixPath

Layout = Callable[[str], PurePosixPath]
"""Function from the name of an attached source to its folder below /kaggle/input."""


def slug(name: str) -> PurePosixPath:
    """Return the older path: directly below the input folder, without an owner.

    >>> str(slug("ann/small-bundle")), str(slug("eedi")), str(slug("ann/llm/transformers/7b/1"))
    ('small-bundle', 'eedi', 'llm/transformers/7b/1')
    """
    return PurePosixPath(*_parts(name)[-4:]) if _is_model(name) else PurePosixPath(_parts(name)[-1])


def owner(name: str) -> PurePosixPath:
    """Return the newer path: by kind, with the owner.

    >>> str(owner("ann/small-bundle")), str(owner("eedi")), str(owner("ann/llm/transformers/7b/1"))
    ('datasets/ann/small-bundle', 'competitions/eedi', 'models/ann/llm/transformers/7b/1')
    """
    kinds = {1: "competitions", 2: "datasets"}
    kind = "models" if _is_model(name) else kinds[len(_parts(name))]
    return PurePosixPath(kind, name)


def mixed(name: str) -> PurePosixPath:
    """Return the transitional path: new for competitions and models, old for datasets.

    >>> str(mixed("ann/small-bundle")), str(mixed("eedi"))
    ('small-bundle', 'competitions/eedi')
    """
    return slug(name) if len(_parts(name)) == 2 else owner(name)


LAYOUTS: dict[str, Layout] = {"owner": owner, "slug": slug, "mixed": mixed}
"""Layouts by name, newest first."""


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _is_model(name: str) -> bool:
    return len(_parts(name)) == 5
