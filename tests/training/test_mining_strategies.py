"""What one query's negatives are drawn from."""

import subprocess
import sys

import tiny

from parity.competition.query import MisconceptionId
from parity.run.config.run_file import MiningConfig
from parity.training.mining_strategies import generator, random_count, sentence_keys


def test_ids_that_share_a_sentence_have_the_smaller_id_as_key() -> None:
    assert sentence_keys(tiny.corpus()) == {1: 1, 3: 3, 4: 4, 7: 7, 9: 1}


def test_case_and_white_space_do_not_tell_sentences_apart() -> None:
    texts = ["Forgets  the\nsign ", "forgets the sign", "Forgets the signs"]
    corpus = {MisconceptionId(key): text for key, text in enumerate(texts)}
    assert sentence_keys(corpus) == {0: 0, 1: 0, 2: 2}


def test_keys_do_not_depend_on_the_order_of_the_corpus() -> None:
    turned = dict(reversed(tiny.corpus().items()))
    assert list(sentence_keys(turned).items()) == list(sentence_keys(tiny.corpus()).items())


def test_half_a_negative_is_drawn_as_a_whole_one() -> None:
    shares = {
        share: random_count(MiningConfig(strategy="mix", count=5, random_share=share))
        for share in (0.0, 0.1, 0.5, 1.0)
    }
    assert shares == {0.0: 0, 0.1: 1, 0.5: 3, 1.0: 5}


def test_draws_do_not_follow_the_hash_seed() -> None:
    program = "from parity.training.mining_strategies import generator; "
    program += "print(generator(3, '10_B').sample(range(1000), 5))"
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert told == {str(generator(3, "10_B").sample(range(1000), 5))}
