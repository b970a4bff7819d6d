"""Mount layouts of Kaggle, and the kernel's script, which works in each of them."""

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
def test_a_layout_has_a_folder_for_each_kind(name: str) -> None:
    layout = mounts.LAYOUTS[name]
    assert {ref: str(layout(ref)) for ref in KNOWN[name]} == KNOWN[name]


def test_every_layout_is_tested() -> None:
    assert list(mounts.LAYOUTS) == ["owner", "slug", "mixed"]  # the newest first
    assert set(KNOWN) == set(mounts.LAYOUTS)


@pytest.mark.parametrize("base", [BASE, MODEL])
@pytest.mark.parametrize("name", mounts.LAYOUTS)
def test_the_kernel_s_script_finds_all_folders_in_each_layout(
    tmp_path: Path, name: str, base: str
) -> None:
    layout = mounts.LAYOUTS[name]
    attached.attach(tmp_path, layout, base)
    input_folder = tmp_path / "input"
    expected = [str(tmp_path), *(str(input_folder / layout(ref)) for ref in (BUNDLE, HOUSE, base))]
    assert attached.start(tmp_path).launch[-5:-1] == expected
