"""The causal order is consistent, and its parts are what ledger, bundle and attribution need."""

import pytest

from parity.run import layers
from parity.run.config.run_file import Config


@pytest.mark.parametrize("layer", layers.BY_NAME.values(), ids=layers.ORDER)
def test_a_layer_is_decided_by_earlier_layers(layer: layers.Layer) -> None:
    earlier = layers.ORDER[: layers.ORDER.index(layer.name)]
    assert set(layer.decided_by) <= set(earlier)


@pytest.mark.parametrize("layer", layers.BY_NAME.values(), ids=layers.ORDER)
def test_a_layer_has_advice_in_one_line(layer: layers.Layer) -> None:
    assert layer.advice.endswith(".")
    assert "\n" not in layer.advice
    assert "invoke" not in layer.advice


@pytest.mark.parametrize("layer", layers.BY_NAME.values(), ids=layers.ORDER)
def test_the_keys_of_a_layer_exist_in_the_run_file(layer: layers.Layer) -> None:
    section = getattr(Config(name="plain"), layer.section) if layer.section else None
    assert (section is None) == (layer.keys == ())
    assert all(hasattr(section, key) for key in layer.keys)


def test_no_key_belongs_to_two_layers() -> None:
    keys = [(layer.section, key) for layer in layers.BY_NAME.values() for key in layer.keys]
    assert len(set(keys)) == len(keys)


def test_every_prompt_key_belongs_to_a_layer() -> None:
    keys = {
        key for layer in layers.BY_NAME.values() if layer.section == "prompt" for key in layer.keys
    }
    assert keys == set(Config(name="plain").prompt.model_dump())


def test_layers_that_may_differ_are_not_pinned() -> None:
    assert set(layers.SOFT).isdisjoint(layers.PINNED)
    assert all(layers.follows("embeddings", name) for name in layers.SOFT)


def test_identity_and_swappable_layers_have_digests_or_settings() -> None:
    assert layers.IDENTITY == ("base", "adapter", "template")
    assert set(layers.IDENTITY) <= set(layers.EXACT)
    assert {name for name in layers.ORDER if layers.BY_NAME[name].keys} | {"adapter"} == set(
        layers.SWAPPABLE
    )


def test_an_unknown_layer_counts_only_on_request() -> None:
    a, b = {"base": "1", "texts": "x"}, {"texts": "y"}
    assert layers.differences(a, b) == ["texts"]
    assert layers.differences(a, b, with_unknown=True) == ["base", "texts"]
    assert layers.differences(a, b, ("base",)) == []


def test_the_order_of_the_names_given_does_not_matter() -> None:
    a, b = dict.fromkeys(layers.RECORDED, "a"), dict.fromkeys(layers.RECORDED, "b")
    assert layers.differences(a, b, reversed(layers.PINNED)) == list(layers.EXACT)
