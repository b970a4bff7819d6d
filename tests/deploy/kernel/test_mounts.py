"""Each known layout of Kaggle's mounts, and the kernel's script, which finds all in any of them."""

from pathlib import Path

import attached
import pytest
from attached import BASE, BUNDLE, HOUSE, MODEL

from parity.deploy.kernel import mounts

KNOWN = {
    "slug": {BUNDLE: "small-bundle", "eedi": "eedi", MODEL: "llm/transformers/7b/1"},
    "owner": {
        BUNDLE: "datasets/ann/small-bundle",
        "eedi": "competitions/eedi",
        MODEL: f"models/{MODEL}",
    },
    "mixed": {BUNDLE: "small-bundle", "eedi": "competitions/eedi", MODEL: f"models/{MODEL}"},
}


@pytest.mark.parametrize("name", mounts.LAYOUTS)
def test_a_layout_says_where_each_kind_is_mounted(name: str) -> None:
    layout = mounts.LAYOUTS[name]
    assert {ref: str(layout(ref)) for ref in KNOWN[name]} == KNOWN[name]


def test_every_layout_is_known() -> None:
    assert list(mounts.LAYOUTS) == ["owner", "slug", "mixed"]  # the newest first
    assert set(KNOWN) == set(mounts.LAYOUTS)


@pytest.mark.parametrize("base", [BASE, MODEL])
@pytest.mark.parametrize("name", mounts.LAYOUTS)
def test_the_kernels_script_finds_everything_in_each(tmp_path: Path, name: str, base: str) -> None:
    layout = mounts.LAYOUTS[name]
    attached.attach(tmp_path, layout, base)
    place = tmp_path / "input"
    there = [str(tmp_path), *(str(place / layout(ref)) for ref in (BUNDLE, HOUSE, base))]
    assert attached.start(tmp_path).launch[-5:-1] == there
