"""Tests of the choice of one query's negatives."""

import subprocess
import sys

import tiny

from parity.competition.query import Position
from parity.run.config.mining import MiningConfig
from parity.training.mining_strategies import generator, random_count, sentence_keys


def test_passages_of_one_text_have_the_first_one_as_key() -> None:
    assert sentence_keys(tiny.corpus()) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 0}


def test_texts_that_differ_in_case_and_white_space_have_one_key() -> None:
    texts = ["Forgets  the\nsign ", "forgets the sign", "Forgets the signs"]
    corpus = {Position(key): text for key, text in enumerate(texts)}
    assert sentence_keys(corpus) == {0: 0, 1: 0, 2: 2}


def test_keys_do_not_depend_on_the_order_of_the_corpus() -> None:
    turned = dict(reversed(list(tiny.corpus().items())))
    assert list(sentence_keys(turned).items()) == list(sentence_keys(tiny.corpus()).items())


def test_the_number_of_random_negatives_is_rounded_half_up() -> None:
    shares = {
        share: random_count(MiningConfig(strategy="mix", count=5, random_share=share))
        for share in (0.0, 0.1, 0.5, 1.0)
    }
    assert shares == {0.0: 0, 0.1: 1, 0.5: 3, 1.0: 5}


def test_draws_do_not_depend_on_the_hash_seed() -> None:
    program = "from parity.training.mining_strategies import generator; "
    program += "print(generator(3, '10_B').sample(range(1000), 5))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert outputs == {str(generator(3, "10_B").sample(range(1000), 5))}
