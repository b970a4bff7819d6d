"""Where Kaggle mounts what is attached: the layouts that were seen, each a function of the name.

A dataset is `owner/slug`, a competition its slug, a model `owner/model/framework/variation/N`.
The kernel knows none of them, so that a new one does no harm; a rehearsal tries them all.

Source: helpers' reports of 2024 to 2026; `models/` with and without its owner is hearsay.
"""

from collections.abc import Callable
from pathlib import PurePosixPath

Layout = Callable[[str], PurePosixPath]
"""Name of what is attached → its folder below /kaggle/input."""


def slug(name: str) -> PurePosixPath:
    """Return the older place: right below the input, without an owner.

    >>> str(slug("ann/small-bundle")), str(slug("eedi")), str(slug("ann/llm/transformers/7b/1"))
    ('small-bundle', 'eedi', 'llm/transformers/7b/1')
    """
    return PurePosixPath(*_parts(name)[-4:]) if _is_model(name) else PurePosixPath(_parts(name)[-1])


def owner(name: str) -> PurePosixPath:
    """Return the newer place: by kind, with the owner.

    >>> str(owner("ann/small-bundle")), str(owner("eedi")), str(owner("ann/llm/transformers/7b/1"))
    ('datasets/ann/small-bundle', 'competitions/eedi', 'models/ann/llm/transformers/7b/1')
    """
    kinds = {1: "competitions", 2: "datasets"}
    kind = "models" if _is_model(name) else kinds[len(_parts(name))]
    return PurePosixPath(kind, name)


def mixed(name: str) -> PurePosixPath:
    """Return a place between the two: competition and models moved, datasets not yet.

    >>> str(mixed("ann/small-bundle")), str(mixed("eedi"))
    ('small-bundle', 'competitions/eedi')
    """
    return slug(name) if len(_parts(name)) == 2 else owner(name)


LAYOUTS: dict[str, Layout] = {"owner": owner, "slug": slug, "mixed": mixed}
"""The newest first."""


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _is_model(name: str) -> bool:
    return len(_parts(name)) == 5
