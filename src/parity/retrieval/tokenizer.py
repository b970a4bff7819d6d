"""Tokenizer: texts to token ids and packs, without the model's weights.

Only the tokenizers library reads `tokenizer.json`, and EOS is appended here, so that the version of
transformers cannot change the tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as HfTokenizer

from parity.retrieval.engine import trie
from parity.retrieval.models import positions
from parity.retrieval.models.base_model import BaseModel
from parity.run import files
from parity.run.config.encoder import EncoderConfig
from parity.run.errors import BadConfig, Mismatch

Tokens = Sequence[int]


class Tokenizer:
    """The tokenizer of a base model, and the packing of its sequences.

    Attributes:
        base: base model.
        config: encoder settings.
        is_causal: whether the model is causal; then EOS ends each sequence, and its state is the
            embedding.
        shares_prefixes: whether sequences are packed as a prefix trie.
        longest_text: most tokens that the model has positions for; None without a limit.
    """

    def __init__(
        self, base: BaseModel, config: EncoderConfig, shape: Any, *, is_causal: bool
    ) -> None:
        """Read the tokenizer.

        Args:
            base: base model.
            config: encoder settings, with the token budget.
            shape: config of the Hugging Face model, which may name EOS.
            is_causal: whether the model is causal; then EOS is appended and prefixes are shared.

        Raises:
            BadConfig: there is no tokenizer.json, or a causal model has no EOS.
            Mismatch: the tokenizer has more tokens than the model's embedding table.
        """
        self.base, self.config = base, config
        self.is_causal = self.shares_prefixes = is_causal
        self._tokenizer = _read_tokenizer(base.folder)
        self._table_size = _table_size_of(base.folder)
        self.longest_text = positions.longest_text(
            base.folder, files.read_json(base.folder / "config.json")
        )
        self._eos = _closing_tokens(self._tokenizer, shape, base) if is_causal else []

    def count(self, text: str) -> int:
        """Return the number of tokens in `text`, special tokens included."""
        return len(self._body(self._tokenizer.encode(text).ids)) + len(self._eos)

    def tokenize(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        """Return the token ids of each text, special tokens included, truncated to `limit`.

        Raises:
            Mismatch: a text has a token that the model has no embedding for.
        """
        tokens = self._encode(texts, limit)
        for row, ids in enumerate(tokens, start=1):
            if max(ids, default=0) >= self._table_size:
                # An added token, such as [PAD], may lie past the table as long as no text has it.
                token = self._tokenizer.id_to_token(max(ids))
                raise Mismatch(
                    f"base model {self.base.name} has no embedding for the token {token!r} of text "
                    f"{row}. Use the tokenizer that belongs to its weights"
                )
        return tokens

    def _encode(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        if self._eos:  # the fast method returns the same ids, without offsets
            encoded = self._tokenizer.encode_batch_fast(list(texts))
            return [self._body(item.ids)[: limit - len(self._eos)] + self._eos for item in encoded]
        self._tokenizer.enable_truncation(limit)  # keeps the closing special token
        try:
            return [item.ids for item in self._tokenizer.encode_batch_fast(list(texts))]
        finally:
            self._tokenizer.no_truncation()

    def packs(self, sequences: Sequence[Tokens], budget: int = 0) -> list[trie.Pack]:
        """Return the packs of `sequences`; they depend only on the sequences and the budget.

        Args:
            sequences: token ids of each sequence.
            budget: largest number of tokens in a pack; 0 means `encoder.token_budget`.
        """
        pack = trie.pack if self.shares_prefixes else trie.pack_equal_lengths
        return pack(sequences, budget or self.config.token_budget)

    def _body(self, ids: list[int]) -> list[int]:
        """Return `ids` without trailing EOS, which some tokenizers and texts contain."""
        stop = len(ids)
        while stop and ids[stop - 1 : stop] == self._eos:
            stop -= 1
        return ids[:stop]


def load_tokenizer(base: BaseModel, config: EncoderConfig) -> Tokenizer:
    """Return the tokenizer of a base model without loading its weights.

    The pooling determines whether the model is causal; an encoder checks that it fits.
    """
    # Imported here: an encoder already has the model's config, and the import takes seconds.
    from transformers import AutoConfig

    shape = AutoConfig.from_pretrained(str(base.folder))
    return Tokenizer(base, config, shape, is_causal=config.pooling == "last")


def _closing_tokens(tokenizer: HfTokenizer, config: Any, base: BaseModel) -> list[int]:
    """Return the token that ends a sequence: the one that the tokenizer appends, or else EOS."""
    probe = tokenizer.encode("a")
    if probe.special_tokens_mask[-1:] == [1]:  # not always eos_token_id: Qwen3-Embedding
        return list(probe.ids[-1:])
    eos = config.eos_token_id
    if eos is None:
        raise BadConfig(
            f"base model {base.name}: config.json has no eos_token_id to end texts with"
        )
    return [eos[0] if isinstance(eos, list) else eos]


def _read_tokenizer(folder: Path) -> HfTokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BadConfig(
            f"tokenizer.json is missing in {folder.name} (library versions read other files "
            "differently). Save the base model with its fast tokenizer"
        )
    try:
        tokenizer = HfTokenizer.from_file(str(path))
    except Exception as error:  # the library raises this class for every fault
        reason = (str(error).strip().splitlines() or [""])[0]
        raise BadConfig(f"{folder.name}/tokenizer.json cannot be read ({reason})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    size, own = _table_size_of(folder), tokenizer.get_vocab_size(with_added_tokens=False)
    if own > size:
        raise Mismatch(
            f"{folder.name}: the tokenizer has more tokens than the embedding table "
            f"({own} > {size})"
        )
    return tokenizer


def _table_size_of(folder: Path) -> int:
    """Return the number of tokens that a base model has embeddings for."""
    return int(files.read_json(folder / "config.json")["vocab_size"])
