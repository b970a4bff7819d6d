"""Every key of a run file is documented, in the code and on the generated page."""

import re
from pathlib import Path

import pytest

from parity.run.config.evaluation import SECTIONS as SECTIONS_OF_EVALUATIONS
from parity.run.config.section import Section
from parity.run.experiment import open_run
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


def test_the_evaluations_of_the_page_are_valid(tmp_path: Path) -> None:
    page = (config_docs.ROOT / config_docs.PAGE).read_text(encoding="utf-8")
    section = page.partition("## `[evaluations.NAME]`")[2]
    (example,) = re.findall(r"^```toml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    file = tmp_path / "example.toml"
    file.write_text(example, encoding="utf-8")
    run = open_run(file)
    assert set(run.config.evaluations) == {"bnb4", "folds", "shots"}
    assert run.evaluated_as("bnb4").config.encoder.quantize == "4bit"
    assert run.evaluated_as("shots").config.prompt.example_count == 3
    assert run.evaluated_as("folds").config.split.name == "subject-s0-f0of5"
    assert all(f"`{name}`" in section for name in SECTIONS_OF_EVALUATIONS)
