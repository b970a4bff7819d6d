"""Every key of a run file is documented, in the code and on the generated page."""

import pytest

from parity.run.config.section import Section
from tools import config_docs

SECTIONS = config_docs.sections()


def test_every_section_of_a_config_has_a_page_section() -> None:
    assert {"data", "split", "prompt", "encoder", "mining", "training"} <= set(SECTIONS)
    assert {"scoring", "shipping", "forecast"} <= set(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_every_key_has_a_docstring(section: type[Section]) -> None:
    assert list(config_docs.descriptions(section)) == list(section.model_fields)


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_description_is_a_sentence(section: type[Section]) -> None:
    for key, text in config_docs.descriptions(section).items():
        assert text[0].isupper() or text[0] == "`", key
        assert text.endswith("."), key


def test_the_configuration_page_is_up_to_date() -> None:
    page = (config_docs.ROOT / config_docs.PAGE).read_text(encoding="utf-8")
    assert page == config_docs.render(), "run python tools/config_docs.py"
