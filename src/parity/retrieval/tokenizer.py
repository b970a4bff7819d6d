"""What an encoder does to texts before it needs its weights: tokens, and packs of them.

Tokens come from `tokenizer.json` through the tokenizers library alone, and EOS is appended here, so
that no library version can change them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as HfTokenizer

from parity.retrieval.engine import trie
from parity.retrieval.models.base_model import BaseModel
from parity.run import files
from parity.run.config.run_file import EncoderConfig
from parity.run.errors import BadConfig, Mismatch

Tokens = Sequence[int]


class Tokenizer:
    """A base's tokenizer, and how its sequences are packed.

    Attributes:
        base: the base weights.
        config: how they run.
        causal: whether EOS ends a sequence, whose state is its embedding.
        shares: whether sequences are packed as a prefix trie.
    """

    def __init__(self, base: BaseModel, config: EncoderConfig, shape: Any, *, causal: bool) -> None:
        """Read the tokenizer.

        Args:
            base: the base weights.
            config: the token budget.
            shape: the model's own config, which may name EOS.
            causal: whether EOS ends a sequence; then prefixes are shared, too.

        Raises:
            BadConfig: there is no tokenizer.json, or a causal model has no EOS.
            Mismatch: tokens were added that the model has no embedding for.
        """
        self.base, self.config = base, config
        self.causal = self.shares = causal
        self._tokenizer = _tokenizer(base.folder)
        self._eos = _closing(self._tokenizer, shape, base) if causal else []

    def count(self, text: str) -> int:
        """Return how many tokens `text` has, special ones included."""
        return len(self._body(self._tokenizer.encode(text).ids)) + len(self._eos)

    def tokenize(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        """Return token ids, special ones included, at most `limit` a text (the tail is cut)."""
        if self._eos:  # the fast way finds the same ids, but not where in the text they stand
            encoded = self._tokenizer.encode_batch_fast(list(texts))
            return [self._body(one.ids)[: limit - len(self._eos)] + self._eos for one in encoded]
        self._tokenizer.enable_truncation(limit)  # keeps the closing special token
        try:
            return [one.ids for one in self._tokenizer.encode_batch_fast(list(texts))]
        finally:
            self._tokenizer.no_truncation()

    def packs(self, sequences: Sequence[Tokens], budget: int = 0) -> list[trie.Pack]:
        """Return the packs that hold `sequences`; they depend on them and on the budget only.

        Args:
            sequences: token ids.
            budget: tokens in a pack; 0 means `encoder.token_budget`.
        """
        cut = trie.pack if self.shares else trie.rows
        return cut(sequences, budget or self.config.token_budget)

    def _body(self, ids: list[int]) -> list[int]:
        """Return `ids` without EOS at the end, which some tokenizers and some texts write."""
        stop = len(ids)
        while stop and ids[stop - 1 : stop] == self._eos:
            stop -= 1
        return ids[:stop]


def opened(base: BaseModel, config: EncoderConfig) -> Tokenizer:
    """Return the reader of a base without loading its weights.

    Whether the model is causal is taken from the pooling, which an encoder proves to fit.
    """
    # Imported here: an encoder has the model's config already, and the import takes seconds.
    from transformers import AutoConfig

    shape = AutoConfig.from_pretrained(str(base.folder))
    return Tokenizer(base, config, shape, causal=config.pooling == "last")


def _closing(tokenizer: HfTokenizer, config: Any, base: BaseModel) -> list[int]:
    """Return the token that ends a sequence: the tokenizer's own where it adds one, else EOS."""
    probe = tokenizer.encode("a")
    if probe.special_tokens_mask[-1:] == [1]:  # not always eos_token_id: Qwen3-Embedding
        return list(probe.ids[-1:])
    eos = config.eos_token_id
    if eos is None:
        raise BadConfig(f"base {base.name}: config.json has no eos_token_id to end a text with")
    return [eos[0] if isinstance(eos, list) else eos]


def _tokenizer(folder: Path) -> HfTokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BadConfig(
            f"{folder.name}: tokenizer.json is missing (other files are read differently by "
            "different library versions); save the base once with its fast tokenizer"
        )
    tokenizer = HfTokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if tokenizer.get_vocab_size() > files.read_json(folder / "config.json")["vocab_size"]:
        raise Mismatch(f"{folder.name}: tokens were added that the model has no embedding for")
    return tokenizer
