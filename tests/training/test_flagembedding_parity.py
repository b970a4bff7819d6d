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

from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter, base_model
from parity.run.config.encoder import EncoderConfig
from parity.run.config.training import TrainingConfig
from parity.training.batches import Batch, TrainingData, plan
from parity.training.gradcache import add_gradient
from parity.training.loss import PassageGroups, distillation_loss, info_nce
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


def flag_model(model: torch.nn.Module) -> Any:
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
    recurring = tuple(map(tiny.at, (3, 4, 7)))
    rows = tuple(
        QueryNegatives(row, tuple(key for key in recurring if key not in right), *blank)
        for row, right in tiny.qrels().items()
        for blank in [_blank(3 - len(right & {*recurring}))]
    )
    negatives = Negatives(rows, "m", "random")
    return plan(
        TrainingData(tiny.queries(), tiny.qrels(), tiny.corpus(), negatives), config, epoch=1
    )[0]


def _blank(count: int) -> tuple[tuple[int, ...], tuple[None, ...]]:
    return (0,) * count, (None,) * count


def tokens_of(batch: Batch) -> tuple[Tokens, Tokens]:
    """Return random token ids of different lengths for each query and misconception, with EOS.

    Pairs of queries share prefixes, as queries of a question do. Repeated passages have equal ids.
    """
    draws = random.Random(1)
    frame = [1, *(draws.randrange(3, 97) for _ in range(9))]
    queries = [
        [*frame[: 4 + index // 2], *(draws.randrange(3, 97) for _ in range(3 + index)), 2]
        for index in range(len(batch.query_ids))
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
    result = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    model.zero_grad(set_to_none=True)
    return result


def relative_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest entry."""
    return float((first - second).abs().max() / second.abs().max())


def test_on_equal_embeddings_loss_and_gradients_are_equal_to_the_bit() -> None:
    batch = batch_of(loss="flagembedding")
    reference = flag_model(untrained("llama"))
    torch.manual_seed(3)
    vectors = torch.nn.functional.normalize(torch.randn(8 + 8 * GROUP, 32), dim=-1)
    results = []
    for use_reference in (False, True):
        inputs = vectors.clone().requires_grad_()
        queries, passages = inputs[:8], inputs[8:]
        if use_reference:
            _, loss = reference._compute_in_batch_neg_loss(queries, passages)
        else:
            masked = torch.zeros(8, 8 * GROUP, dtype=torch.bool)
            target = torch.tensor(batch.target)
            loss = info_nce(queries, passages, target, masked, TEMPERATURE)
        loss.backward()
        assert inputs.grad is not None
        results.append((loss.item(), inputs.grad))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_on_equal_token_ids_loss_and_gradients_are_equal(
    family: str, side: str, tmp_path: Path
) -> None:
    model = untrained(family)
    encoder = encoder_of(model, tmp_path / family)
    batch = batch_of(loss="flagembedding")
    queries, passages = tokens_of(batch)

    reference = flag_model(model)
    expected = reference(queries=padded(queries, side), passages=padded(passages, side)).loss
    expected.backward()
    expected_gradients = gradients(model)

    loss = add_gradient(encoder, (queries, passages), batch, SETTINGS, seed="").loss
    result = gradients(encoder.model)

    assert loss == pytest.approx(expected.item(), rel=RELATIVE)
    assert result.keys() == expected_gradients.keys()
    assert (
        max(
            relative_difference(result[name], expected_gradients[name])
            for name in expected_gradients
        )
        <= RELATIVE
    )
    assert min(float(gradient.abs().max()) for gradient in expected_gradients.values()) > 0


def test_lora_gradients_are_equal_too(tmp_path: Path) -> None:
    encoder = encoder_of(untrained("llama"), tmp_path / "llama")
    encoder.model = adapter.attach(encoder.model.requires_grad_(False), TrainingConfig(r=4))
    torch.manual_seed(5)
    for name, weight in encoder.model.named_parameters():
        if "lora_B" in name:  # zero at first, which would leave A without a gradient
            torch.nn.init.normal_(weight, std=0.1)
    batch = batch_of(loss="flagembedding")
    queries, passages = tokens_of(batch)
    padded_model = adapter.attach(untrained("llama"), TrainingConfig(r=4))  # it runs padded batches
    padded_model.load_state_dict(encoder.model.state_dict())
    reference = flag_model(padded_model)
    reference(queries=padded(queries, "left"), passages=padded(passages, "left")).loss.backward()
    expected = gradients(padded_model)
    add_gradient(encoder, (queries, passages), batch, SETTINGS, seed="")
    result = gradients(encoder.model)
    assert result.keys() == expected.keys()
    assert len(expected) == 2 * 7 * 2  # A and B of seven linear layers in two blocks
    assert max(relative_difference(result[name], expected[name]) for name in expected) <= RELATIVE


def test_without_repeats_the_infonce_layout_has_flagembeddings_loss(tmp_path: Path) -> None:
    """With every id once, the two layouts differ only in the order of the columns."""
    model = untrained("llama")
    encoder = encoder_of(model, tmp_path / "llama")
    rows = {"12_A": 4, "20_A": 3}
    queries = [query for query in tiny.queries() if query.query_id in rows]
    qrels = {row: right for row, right in tiny.qrels().items() if row in rows}
    mined = (
        QueryNegatives(queries[0].query_id, (tiny.at(7),), *_blank(1)),
        QueryNegatives(queries[1].query_id, (tiny.at(1),), *_blank(1)),
    )
    negatives = Negatives(mined, "m", "random")
    config = TrainingConfig(batch_size=2, train_group_size=2, temperature=TEMPERATURE)
    batch = plan(TrainingData(queries, qrels, tiny.corpus(), negatives), config, epoch=1)[0]
    assert len(batch.passages) == 4
    query_tokens, passage_tokens = tokens_of(batch)

    reference = flag_model(model)
    expected = reference(
        queries=padded(query_tokens, "left"), passages=padded(passage_tokens, "left")
    ).loss
    loss = add_gradient(encoder, (query_tokens, passage_tokens), batch, SETTINGS, seed="").loss
    assert loss == pytest.approx(expected.item(), rel=RELATIVE)


def test_the_losses_differ_only_by_masked_false_negatives() -> None:
    """On rows that share misconceptions, the losses differ exactly by the masked pairs."""
    batch = batch_of(loss="infonce")
    assert any(batch.masked)
    torch.manual_seed(3)
    vectors = torch.nn.functional.normalize(torch.randn(8 + len(batch.passages), 32), dim=-1)
    queries, passages = vectors[:8], vectors[8:]
    masked = torch.zeros(8, len(batch.passages), dtype=torch.bool)
    for row, hidden in enumerate(batch.masked):
        masked[row, list(hidden)] = True
    target = torch.tensor(batch.target)
    masked_loss = info_nce(queries, passages, target, masked, TEMPERATURE)
    reference = flag_model(untrained("llama"))
    scores = reference.compute_score(queries, passages)
    assert reference.compute_loss(scores, target).item() > masked_loss.item()
    hidden_by_hand = torch.where(masked, torch.tensor(-torch.inf), scores)
    assert reference.compute_loss(hidden_by_hand, target).item() == masked_loss.item()


@pytest.mark.parametrize("kind", ["kl_div", "m3_kd_loss"])
def test_with_a_teacher_loss_and_gradients_are_equal(kind: str) -> None:
    reference = flag_model(untrained("llama"))
    reference.kd_loss_type = kind
    torch.manual_seed(3)
    vectors = torch.nn.functional.normalize(torch.randn(8 + 8 * GROUP, 32), dim=-1)
    teacher = torch.randn(8, GROUP)
    groups = [list(range(row * GROUP, (row + 1) * GROUP)) for row in range(8)]
    actual, flag_vectors = (vectors.clone().requires_grad_() for _ in range(2))
    shares = torch.softmax(teacher, dim=-1)
    _, expected = reference._compute_in_batch_neg_loss(
        flag_vectors[:8], flag_vectors[8:], teacher_targets=shares
    )
    expected.backward()
    group = PassageGroups.from_lists(groups, teacher.tolist(), torch.device("cpu"))
    masked = torch.zeros(8, 8 * GROUP, dtype=torch.bool)
    loss = distillation_loss(kind, actual[:8] @ actual[8:].T / TEMPERATURE, masked, group)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert actual.grad is not None
    assert flag_vectors.grad is not None
    assert relative_difference(actual.grad, flag_vectors.grad) <= 1e-6
