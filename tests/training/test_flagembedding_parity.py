"""Loss and gradients equal FlagEmbedding's own model class, on embeddings and on token ids."""

import random
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from FlagEmbedding.finetune.embedder.decoder_only.icl.modeling import BiDecoderOnlyEmbedderICLModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaModel, MistralConfig, MistralModel, PreTrainedModel

from parity.competition.query import MisconceptionId
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter, base_model
from parity.run.config.run_file import EncoderConfig, TrainingConfig
from parity.training.batches import Batch, TrainingData, plan
from parity.training.gradcache import gradient
from parity.training.loss import PassageGroups, distilled, info_nce
from parity.training.negatives import Negatives, QueryNegatives

TEMPERATURE = 0.02
GROUP = 3
SETTINGS = TrainingConfig(temperature=TEMPERATURE, token_budget=64)
RELATIVE = 1e-5
SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
Tokens = list[list[int]]


def untrained(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if family == "llama":
        return LlamaModel(LlamaConfig(**SHAPE))
    return MistralModel(MistralConfig(**SHAPE, sliding_window=None))


def encoder_of(model: PreTrainedModel, folder: Path) -> Encoder:
    """Load the model as a run does, from files, every weight trainable."""
    model.save_pretrained(folder)
    words = {"<unk>": 0, "<s>": 1, "</s>": 2}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    # A small budget, so that a batch is several packs and prefixes are repeated between them.
    config = EncoderConfig(base=str(folder), precision="fp32", device="cpu", token_budget=64)
    encoder = Encoder(base_model.describe("untrained", folder), config)
    encoder.model.requires_grad_(True)
    return encoder


def theirs(model: torch.nn.Module) -> Any:
    wrapped = BiDecoderOnlyEmbedderICLModel(
        model,
        temperature=TEMPERATURE,
        sentence_pooling_method="last_token",
        normalize_embeddings=True,
    )
    return wrapped.train()


def batch_of(**keys: object) -> Batch:
    """Plan one batch of the tiny competition, with the misconceptions that recur in it."""
    config = TrainingConfig.model_validate({"batch_size": 8, "train_group_size": GROUP, **keys})
    rows = tuple(
        QueryNegatives(
            row, tuple(key for key in map(MisconceptionId, (3, 4, 7)) if key not in right), *two
        )
        for row, right in tiny.qrels().items()
        for two in [_blank(3 - len(right & {3, 4, 7}))]
    )
    negatives = Negatives(rows, "m", "random")
    return plan(
        TrainingData(tiny.queries(), tiny.qrels(), tiny.corpus(), negatives), config, epoch=1
    )[0]


def _blank(count: int) -> tuple[tuple[int, ...], tuple[None, ...]]:
    return (0,) * count, (None,) * count


def tokens_of(batch: Batch) -> tuple[Tokens, Tokens]:
    """Give each query and each misconception random ids of its own length, ended by EOS.

    Queries share prefixes in pairs, as those of a question do; a repeated passage repeats.
    """
    draws = random.Random(1)
    frame = [1, *(draws.randrange(3, 97) for _ in range(9))]
    queries = [
        [*frame[: 4 + place // 2], *(draws.randrange(3, 97) for _ in range(3 + place)), 2]
        for place in range(len(batch.query_ids))
    ]
    drawn = {
        key: [1, *(random.Random(int(key)).choices(range(3, 97), k=2 + int(key))), 2]
        for key in sorted(set(batch.passages))
    }
    return queries, [drawn[key] for key in batch.passages]


def padded(sequences: Tokens, side: str) -> dict[str, torch.Tensor]:
    """Pad as FlagEmbedding's collator does with a tokenizer of that padding side."""
    width = max(map(len, sequences))
    ids, mask = [], []
    for tokens in sequences:
        fill = [0] * (width - len(tokens))
        ids.append([*fill, *tokens] if side == "left" else [*tokens, *fill])
        seen = [1] * len(tokens)
        mask.append([*fill, *seen] if side == "left" else [*seen, *fill])
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    model.zero_grad(set_to_none=True)
    return found


def apart(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest entry."""
    return float((first - second).abs().max() / second.abs().max())


def test_on_equal_embeddings_loss_and_gradients_are_equal_to_the_bit() -> None:
    batch = batch_of(loss="flagembedding")
    judge = theirs(untrained("llama"))
    torch.manual_seed(3)
    vectors = torch.nn.functional.normalize(torch.randn(8 + 8 * GROUP, 32), dim=-1)
    found = []
    for judged in (False, True):
        both = vectors.clone().requires_grad_()
        queries, passages = both[:8], both[8:]
        if judged:
            _, loss = judge._compute_in_batch_neg_loss(queries, passages)
        else:
            masked = torch.zeros(8, 8 * GROUP, dtype=torch.bool)
            target = torch.tensor(batch.target)
            loss = info_nce(queries, passages, target, masked, TEMPERATURE)
        loss.backward()
        assert both.grad is not None
        found.append((loss.item(), both.grad))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_on_equal_token_ids_loss_and_gradients_are_equal(
    family: str, side: str, tmp_path: Path
) -> None:
    model = untrained(family)
    encoder = encoder_of(model, tmp_path / family)
    batch = batch_of(loss="flagembedding")
    queries, passages = tokens_of(batch)

    judge = theirs(model)
    expected = judge(queries=padded(queries, side), passages=padded(passages, side)).loss
    expected.backward()
    wanted = gradients(model)

    loss = gradient(encoder, (queries, passages), batch, SETTINGS, seed="").loss
    found = gradients(encoder.model)

    assert loss == pytest.approx(expected.item(), rel=RELATIVE)
    assert found.keys() == wanted.keys()
    assert max(apart(found[name], wanted[name]) for name in wanted) <= RELATIVE
    assert min(float(gradient.abs().max()) for gradient in wanted.values()) > 0


def test_lora_gradients_are_equal_too(tmp_path: Path) -> None:
    encoder = encoder_of(untrained("llama"), tmp_path / "llama")
    encoder.model = adapter.attach(encoder.model.requires_grad_(False), TrainingConfig(r=4))
    torch.manual_seed(5)
    for name, weight in encoder.model.named_parameters():
        if "lora_B" in name:  # zero at first, which would leave A without a gradient
            torch.nn.init.normal_(weight, std=0.1)
    batch = batch_of(loss="flagembedding")
    queries, passages = tokens_of(batch)
    alone = adapter.attach(untrained("llama"), TrainingConfig(r=4))  # it runs padded batches
    alone.load_state_dict(encoder.model.state_dict())
    judge = theirs(alone)
    judge(queries=padded(queries, "left"), passages=padded(passages, "left")).loss.backward()
    wanted = gradients(alone)
    gradient(encoder, (queries, passages), batch, SETTINGS, seed="")
    found = gradients(encoder.model)
    assert found.keys() == wanted.keys()
    assert len(wanted) == 2 * 7 * 2  # A and B of seven linear layers in two blocks
    assert max(apart(found[name], wanted[name]) for name in wanted) <= RELATIVE


def test_without_repeats_our_layout_has_flagembeddings_loss(tmp_path: Path) -> None:
    """One function serves both layouts: with every id once, they differ in column order alone."""
    model = untrained("llama")
    encoder = encoder_of(model, tmp_path / "llama")
    rows = {"12_A": 4, "20_A": 3}
    queries = [query for query in tiny.queries() if query.query_id in rows]
    qrels = {row: right for row, right in tiny.qrels().items() if row in rows}
    mined = (
        QueryNegatives(queries[0].query_id, (MisconceptionId(7),), *_blank(1)),
        QueryNegatives(queries[1].query_id, (MisconceptionId(1),), *_blank(1)),
    )
    negatives = Negatives(mined, "m", "random")
    config = TrainingConfig(batch_size=2, train_group_size=2, temperature=TEMPERATURE)
    batch = plan(TrainingData(queries, qrels, tiny.corpus(), negatives), config, epoch=1)[0]
    assert len(batch.passages) == 4
    asked, answers = tokens_of(batch)

    judge = theirs(model)
    expected = judge(queries=padded(asked, "left"), passages=padded(answers, "left")).loss
    loss = gradient(encoder, (asked, answers), batch, SETTINGS, seed="").loss
    assert loss == pytest.approx(expected.item(), rel=RELATIVE)


def test_masking_false_negatives_is_where_we_part() -> None:
    """On rows that share misconceptions the two losses differ, and by the masked pairs alone."""
    batch = batch_of(loss="infonce")
    assert any(batch.masked)
    torch.manual_seed(3)
    vectors = torch.nn.functional.normalize(torch.randn(8 + len(batch.passages), 32), dim=-1)
    queries, passages = vectors[:8], vectors[8:]
    masked = torch.zeros(8, len(batch.passages), dtype=torch.bool)
    for row, hidden in enumerate(batch.masked):
        masked[row, list(hidden)] = True
    target = torch.tensor(batch.target)
    ours = info_nce(queries, passages, target, masked, TEMPERATURE)
    judge = theirs(untrained("llama"))
    scores = judge.compute_score(queries, passages)
    assert judge.compute_loss(scores, target).item() > ours.item()
    hidden_by_hand = torch.where(masked, torch.tensor(-torch.inf), scores)
    assert judge.compute_loss(hidden_by_hand, target).item() == ours.item()


@pytest.mark.parametrize("kind", ["kl_div", "m3_kd_loss"])
def test_with_a_teacher_loss_and_gradients_are_equal(kind: str) -> None:
    judge = theirs(untrained("llama"))
    judge.kd_loss_type = kind
    torch.manual_seed(3)
    vectors = torch.nn.functional.normalize(torch.randn(8 + 8 * GROUP, 32), dim=-1)
    teacher = torch.randn(8, GROUP)
    own = [list(range(row * GROUP, (row + 1) * GROUP)) for row in range(8)]
    mine, other = (vectors.clone().requires_grad_() for _ in range(2))
    shares = torch.softmax(teacher, dim=-1)
    _, expected = judge._compute_in_batch_neg_loss(other[:8], other[8:], teacher_targets=shares)
    expected.backward()
    group = PassageGroups.of(own, teacher.tolist(), torch.device("cpu"))
    masked = torch.zeros(8, 8 * GROUP, dtype=torch.bool)
    loss = distilled(kind, mine[:8] @ mine[8:].T / TEMPERATURE, masked, group)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert mine.grad is not None
    assert other.grad is not None
    assert apart(mine.grad, other.grad) <= 1e-6
