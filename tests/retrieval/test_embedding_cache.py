"""Cached embeddings have the bytes of computed ones, or are not used."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch

from parity.retrieval import embedding_cache
from parity.retrieval.embedding_cache import EmbeddingCache
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine import device
from parity.retrieval.engine.distributed import ProcessGroup
from parity.retrieval.models import adapter
from parity.retrieval.models.base_model import BaseModel
from parity.run import environment
from parity.run.config.encoder import EncoderConfig

SEQUENCES = models.sequences()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return models.write(tmp_path_factory.mktemp("bases") / "llama", "llama")


@pytest.fixture(scope="module")
def trained(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the folders of two adapters of one shape."""
    folders = [tmp_path_factory.mktemp("adapters") / str(seed) for seed in range(2)]
    for seed, folder in enumerate(folders):
        encoder = models.load(base)
        models.attach(encoder, seed)
        adapter.save(encoder.model, folder, base, layers=0, template="t")
    return folders


def caching_encoder(
    base: BaseModel, folder: Path, adapter: Path | None = None, **changes: Any
) -> Encoder:
    settings = {"precision": "fp32", "device": "cpu", "token_budget": 64, **changes}
    config = EncoderConfig.model_validate(settings)
    return Encoder(base, config, adapter=adapter, cache=EmbeddingCache(folder))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*")) if folder.is_dir() else []


def refuse(*_: object) -> None:
    raise AssertionError("the model must not run")


def was_cached(encoder: Encoder, sequences: list[list[int]] = SEQUENCES) -> bool:
    """Return whether the cache was used; check the bytes against an encoder without a cache."""
    vectors = encoder.embed(sequences)
    stats = encoder.embedded
    encoder._cache, cache = None, encoder._cache
    assert encoder.embed(sequences).tobytes() == vectors.tobytes()
    encoder._cache = cache
    assert (stats.cached > 0) == (stats.tokens == 0) == (stats.packs == 0)
    return stats.cached > 0


def test_a_repeated_list_is_not_computed_again(base: BaseModel, tmp_path: Path) -> None:
    assert not was_cached(caching_encoder(base, tmp_path / "cache"))
    encoder = caching_encoder(base, tmp_path / "cache")
    encoder.model.register_forward_pre_hook(refuse)
    vectors = encoder.embed(SEQUENCES)
    assert vectors.tobytes() == models.load(base).embed(SEQUENCES).tobytes()
    stats = encoder.embedded
    assert (stats.tokens, stats.packs, stats.budget) == (0, 0, 64)
    assert stats.cached == stats.tokens_without_sharing == sum(map(len, SEQUENCES))
    assert encoder.speed()["tokens"] == 0
    assert encoder.embedding_stats()["encode"]["cached"] == stats.cached
    assert len(files(tmp_path / "cache")) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"token_budget": 65},
        {"precision": "bf16"},
        {"quantize": "4bit"},
        {"quantize": "fp8"},
        {"num_layers": 1},
        {"attention": "dense"},
    ],
    ids=str,
)
def test_another_setting_misses_the_cache(
    base: BaseModel, tmp_path: Path, changes: dict[str, Any]
) -> None:
    caching_encoder(base, tmp_path).embed(SEQUENCES)
    assert not was_cached(caching_encoder(base, tmp_path, **changes))
    assert was_cached(caching_encoder(base, tmp_path, **changes))


def test_another_adapter_misses_the_cache(
    base: BaseModel, trained: list[Path], tmp_path: Path
) -> None:
    for folder in (None, *trained):
        assert not was_cached(caching_encoder(base, tmp_path, folder))
    for folder in (None, *trained):
        assert was_cached(caching_encoder(base, tmp_path, folder))


def test_an_adapter_with_another_scale_misses_the_cache(base: BaseModel, tmp_path: Path) -> None:
    vectors = []
    for alpha in (8.0, 16.0):
        encoder = models.load(base)
        models.attach(encoder, lora_alpha=alpha)
        adapter.save(encoder.model, tmp_path / str(alpha), base, layers=0, template="t")
        encoder_ = caching_encoder(base, tmp_path / "cache", tmp_path / str(alpha))
        vectors.append(encoder_.embed(SEQUENCES))
        assert encoder_.embedded.cached == 0
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_another_base_model_misses_the_cache(base: BaseModel, tmp_path: Path) -> None:
    caching_encoder(base, tmp_path / "cache").embed(SEQUENCES)
    other = models.write(tmp_path / "other", "llama", seed=1)
    assert not was_cached(caching_encoder(other, tmp_path / "cache"))


@pytest.mark.parametrize(
    "other",
    [
        [[*SEQUENCES[0][:-1], 9], *SEQUENCES[1:]],
        SEQUENCES[1:],
        SEQUENCES[::-1],
        [[*SEQUENCES[0], *SEQUENCES[1]], *SEQUENCES[2:]],
    ],
    ids=["a token", "one fewer", "the order", "the bounds"],
)
def test_another_list_misses_the_cache(
    base: BaseModel, tmp_path: Path, other: list[list[int]]
) -> None:
    encoder = caching_encoder(base, tmp_path)
    encoder.embed(SEQUENCES)
    encoder.embed(other)
    assert encoder.embedded.cached == 0


@pytest.mark.parametrize(
    ("module", "name", "answer"),
    [
        (torch, "get_num_threads", lambda: 64),
        (torch.backends.cpu, "get_cpu_capability", lambda: "another"),
        (environment, "version", lambda _: "0"),
        (environment, "code", lambda: "another"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_machine_or_software_misses_the_cache(
    base: BaseModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    answer: Callable[..., Any],
) -> None:
    encoder = caching_encoder(base, tmp_path)
    encoder.embed(SEQUENCES)
    monkeypatch.setattr(module, name, answer)
    encoder.embed(SEQUENCES)
    assert encoder.embedded.cached == 0


def test_a_gpu_is_identified_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    for name in ("Tesla T4", "NVIDIA H100 80GB HBM3"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        kinds.append(device.compute_identity(torch.device("cuda")))
    assert kinds[0] != kinds[1] != device.compute_identity(torch.device("cpu"))


@pytest.mark.parametrize("method", ["lora", "all"])
def test_the_cache_is_not_used_while_weights_are_trainable(
    base: BaseModel, tmp_path: Path, method: str
) -> None:
    encoder = caching_encoder(base, tmp_path)
    before = encoder.embed(SEQUENCES)
    models.attach(encoder, method=method)  # the digests still name the base model
    changed = encoder.embed(SEQUENCES)
    assert encoder.embedded.cached == 0
    assert np.abs(changed - before).max() > 1e-3
    assert len(files(tmp_path)) == 1
    assert caching_encoder(base, tmp_path).embed(SEQUENCES).tobytes() == before.tobytes()


def test_the_cache_is_not_used_for_trained_and_frozen_weights(
    base: BaseModel, tmp_path: Path
) -> None:
    encoder = caching_encoder(base, tmp_path)
    before = encoder.embed(SEQUENCES)
    models.attach(encoder)
    encoder.model.requires_grad_(False)
    assert np.abs(encoder.embed(SEQUENCES) - before).max() > 1e-3
    assert len(files(tmp_path)) == 1


def test_a_halved_budget_is_cached_as_the_smaller_budget(base: BaseModel, tmp_path: Path) -> None:
    encoder = caching_encoder(base, tmp_path, token_budget=128)

    def forward(_: Any, __: Any, arguments: dict[str, Any]) -> None:
        if arguments["input_ids"].shape[1] > 64:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    encoder.model.register_forward_pre_hook(forward, with_kwargs=True)
    encoder.embed(SEQUENCES)
    assert was_cached(caching_encoder(base, tmp_path, token_budget=64))
    assert not was_cached(caching_encoder(base, tmp_path, token_budget=128))


def test_an_empty_list_writes_no_file(base: BaseModel, tmp_path: Path) -> None:
    assert caching_encoder(base, tmp_path).embed([]).shape == (0, 32)
    assert files(tmp_path) == []


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip_bit(path: Path) -> None:
    """Flip a bit of one value, which stays finite."""
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(bytes(data))


def clear_file(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_another_list(path: Path) -> None:
    """Replace the file by that of another list."""
    EmbeddingCache(path.parent / "other").write("x" * 64, np.ones((len(SEQUENCES), 32), np.float32))
    (path.parent / "other" / f"{'x' * 64}.safetensors").replace(path)


def replace_shape(path: Path) -> None:
    EmbeddingCache(path.parent).write(path.stem, np.ones((len(SEQUENCES), 16), np.float32))


def write_nan(path: Path) -> None:
    EmbeddingCache(path.parent).write(path.stem, np.full((len(SEQUENCES), 32), np.nan, np.float32))


@pytest.mark.parametrize(
    "damage", [truncate, flip_bit, clear_file, replace_by_another_list, replace_shape, write_nan]
)
def test_a_damaged_file_is_reported_and_computed_again(
    base: BaseModel,
    tmp_path: Path,
    damage: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = caching_encoder(base, tmp_path).embed(SEQUENCES)
    (path,) = files(tmp_path)
    data = path.read_bytes()
    damage(path)
    capsys.readouterr()
    encoder = caching_encoder(base, tmp_path)
    assert encoder.embed(SEQUENCES).tobytes() == expected.tobytes()
    assert encoder.embedded.cached == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "cached embeddings are damaged" in line
    assert path.read_bytes() == data


def test_beyond_the_limit_the_oldest_entries_are_deleted(tmp_path: Path) -> None:
    vectors = np.ones((10, 32), np.float32)
    EmbeddingCache(tmp_path).write("size", vectors)
    (path,) = files(tmp_path)
    cache = EmbeddingCache(tmp_path, limit=3 * path.stat().st_size)
    path.unlink()
    for age, name in enumerate("cadb"):
        cache.write(name, vectors)
        os.utime(tmp_path / f"{name}.safetensors", ns=(age * 10**9, age * 10**9))
    assert [file_path.stem for file_path in files(tmp_path)] == ["a", "b", "d"]
    assert cache.read("c", (10, 32)) is None
    assert cache.read("b", (10, 32)) is not None


def test_a_list_larger_than_the_limit_is_not_cached(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, limit=2000)
    cache.write("small", np.ones((10, 32), np.float32))
    cache.write("large", np.ones((1000, 32), np.float32))
    assert [file_path.stem for file_path in files(tmp_path)] == ["small"]


def test_a_failed_write_only_prints_a_line(
    base: BaseModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    encoder = caching_encoder(base, tmp_path / "file" / "cache")
    assert encoder.embed(SEQUENCES).tobytes() == models.load(base).embed(SEQUENCES).tobytes()
    assert "embeddings are not cached" in capsys.readouterr().err


def test_only_the_main_process_reads_and_all_get_the_result(tmp_path: Path) -> None:
    vectors = np.arange(64, dtype=np.float32).reshape(2, 32)
    EmbeddingCache(tmp_path).write("list", vectors)
    shared: list[torch.Tensor] = []

    class Main(ProcessGroup):
        def share(
            self, parts: list[torch.Tensor], owners: Sequence[int] = ()
        ) -> list[torch.Tensor]:
            shared.extend(parts)
            return parts

    class Other(ProcessGroup):
        def share(
            self, parts: list[torch.Tensor], owners: Sequence[int] = ()
        ) -> list[torch.Tensor]:
            (part,) = parts
            expected = shared.pop(0)
            assert (part.shape, part.dtype) == (expected.shape, expected.dtype)
            return [expected]

    cpu = torch.device("cpu")
    nowhere = EmbeddingCache(tmp_path / "nothing here")
    for cache, expected in ((EmbeddingCache(tmp_path), vectors), (nowhere, None)):
        cache.read_in_all("list", (2, 32), Main(0, 2), cpu)
        result = nowhere.read_in_all("list", (2, 32), Other(1, 2), cpu)
        assert (result is None) == (expected is None)
        assert expected is None or (result is not None and result.tobytes() == expected.tobytes())
        assert shared == []


def test_the_key_depends_on_all_inputs_and_their_order() -> None:
    names = [
        embedding_cache.cache_key(["a", "b"], [[1, 2], [3]]),
        embedding_cache.cache_key(["ab"], [[1, 2], [3]]),
        embedding_cache.cache_key(["b", "a"], [[1, 2], [3]]),
        embedding_cache.cache_key(["a", "b"], [[3], [1, 2]]),
        embedding_cache.cache_key(["a", "b"], [[1, 2, 3]]),
        embedding_cache.cache_key(["a", "b"], []),
    ]
    assert len(set(names)) == len(names)
