"""A kept embedding is the bytes that would have been computed, or it is not used."""

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
from parity.run.config.run_file import EncoderConfig

ASKED = models.sequences()


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


def keeping(base: BaseModel, folder: Path, adapter: Path | None = None, **changes: Any) -> Encoder:
    wanted = {"precision": "fp32", "device": "cpu", "token_budget": 64, **changes}
    config = EncoderConfig.model_validate(wanted)
    return Encoder(base, config, adapter=adapter, cache=EmbeddingCache(folder))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*")) if folder.is_dir() else []


def refuse(*_: object) -> None:
    raise AssertionError("the model was asked")


def was_kept(encoder: Encoder, asked: list[list[int]] = ASKED) -> bool:
    """Embed, prove that the bytes are those of an encoder that keeps none, and say whence."""
    vectors = encoder.embed(asked)
    took = encoder.embedded
    encoder._cache, keeps = None, encoder._cache
    assert encoder.embed(asked).tobytes() == vectors.tobytes()
    encoder._cache = keeps
    assert (took.kept > 0) == (took.tokens == 0) == (took.packs == 0)
    return took.kept > 0


def test_a_second_time_nothing_is_computed(base: BaseModel, tmp_path: Path) -> None:
    assert not was_kept(keeping(base, tmp_path / "kept"))
    again = keeping(base, tmp_path / "kept")
    again.model.register_forward_pre_hook(refuse)
    vectors = again.embed(ASKED)
    assert vectors.tobytes() == models.load(base).embed(ASKED).tobytes()
    took = again.embedded
    assert (took.tokens, took.packs, took.budget) == (0, 0, 64)
    assert took.kept == took.flat == sum(map(len, ASKED))
    assert again.speed()["tokens"] == 0
    assert again.took()["encode"]["kept"] == took.kept
    assert len(files(tmp_path / "kept")) == 1


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
def test_another_setting_never_hits(
    base: BaseModel, tmp_path: Path, changes: dict[str, Any]
) -> None:
    keeping(base, tmp_path).embed(ASKED)
    assert not was_kept(keeping(base, tmp_path, **changes))
    assert was_kept(keeping(base, tmp_path, **changes))


def test_another_adapter_never_hits(base: BaseModel, trained: list[Path], tmp_path: Path) -> None:
    for folder in (None, *trained):
        assert not was_kept(keeping(base, tmp_path, folder))
    for folder in (None, *trained):
        assert was_kept(keeping(base, tmp_path, folder))


def test_an_adapter_of_equal_weights_and_another_scale_never_hits(
    base: BaseModel, tmp_path: Path
) -> None:
    vectors = []
    for alpha in (8.0, 16.0):
        encoder = models.load(base)
        models.attach(encoder, lora_alpha=alpha)
        adapter.save(encoder.model, tmp_path / str(alpha), base, layers=0, template="t")
        kept = keeping(base, tmp_path / "kept", tmp_path / str(alpha))
        vectors.append(kept.embed(ASKED))
        assert kept.embedded.kept == 0
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_another_base_never_hits(base: BaseModel, tmp_path: Path) -> None:
    keeping(base, tmp_path / "kept").embed(ASKED)
    other = models.write(tmp_path / "other", "llama", seed=1)
    assert not was_kept(keeping(other, tmp_path / "kept"))


@pytest.mark.parametrize(
    "other",
    [
        [[*ASKED[0][:-1], 9], *ASKED[1:]],
        ASKED[1:],
        ASKED[::-1],
        [[*ASKED[0], *ASKED[1]], *ASKED[2:]],
    ],
    ids=["a token", "one fewer", "the order", "where one ends"],
)
def test_another_token_never_hits(base: BaseModel, tmp_path: Path, other: list[list[int]]) -> None:
    encoder = keeping(base, tmp_path)
    encoder.embed(ASKED)
    encoder.embed(other)
    assert encoder.embedded.kept == 0


@pytest.mark.parametrize(
    ("where", "name", "answer"),
    [
        (torch, "get_num_threads", lambda: 64),
        (torch.backends.cpu, "get_cpu_capability", lambda: "another"),
        (environment, "version", lambda _: "0"),
        (environment, "code", lambda: "another"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_machine_or_software_never_hits(
    base: BaseModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    answer: Callable[..., Any],
) -> None:
    encoder = keeping(base, tmp_path)
    encoder.embed(ASKED)
    monkeypatch.setattr(where, name, answer)
    encoder.embed(ASKED)
    assert encoder.embedded.kept == 0


def test_a_gpu_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    for name in ("Tesla T4", "NVIDIA H100 80GB HBM3"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        kinds.append(device.kind(torch.device("cuda")))
    assert kinds[0] != kinds[1] != device.kind(torch.device("cpu"))


@pytest.mark.parametrize("method", ["lora", "all"])
def test_nothing_is_kept_or_looked_up_while_weights_are_trainable(
    base: BaseModel, tmp_path: Path, method: str
) -> None:
    bare = keeping(base, tmp_path)
    before = bare.embed(ASKED)
    models.attach(bare, method=method)  # the digests still name the bare base
    changed = bare.embed(ASKED)
    assert bare.embedded.kept == 0
    assert np.abs(changed - before).max() > 1e-3
    assert len(files(tmp_path)) == 1
    assert keeping(base, tmp_path).embed(ASKED).tobytes() == before.tobytes()


def test_nor_when_they_were_trained_and_are_frozen_again(base: BaseModel, tmp_path: Path) -> None:
    bare = keeping(base, tmp_path)
    before = bare.embed(ASKED)
    models.attach(bare)
    bare.model.requires_grad_(False)
    assert np.abs(bare.embed(ASKED) - before).max() > 1e-3
    assert len(files(tmp_path)) == 1


def test_a_budget_halved_on_the_way_is_kept_as_what_it_became(
    base: BaseModel, tmp_path: Path
) -> None:
    encoder = keeping(base, tmp_path, token_budget=128)

    def forward(_: Any, __: Any, given: dict[str, Any]) -> None:
        if given["input_ids"].shape[1] > 64:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    encoder.model.register_forward_pre_hook(forward, with_kwargs=True)
    encoder.embed(ASKED)
    assert was_kept(keeping(base, tmp_path, token_budget=64))
    assert not was_kept(keeping(base, tmp_path, token_budget=128))


def test_no_texts_leave_no_file(base: BaseModel, tmp_path: Path) -> None:
    assert keeping(base, tmp_path).embed([]).shape == (0, 32)
    assert files(tmp_path) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip(path: Path) -> None:
    """Change a bit of one value, which stays a number."""
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def another_list(path: Path) -> None:
    """Put another list's whole file under this name."""
    EmbeddingCache(path.parent / "other").write("x" * 64, np.ones((len(ASKED), 32), np.float32))
    (path.parent / "other" / f"{'x' * 64}.safetensors").replace(path)


def another_shape(path: Path) -> None:
    EmbeddingCache(path.parent).write(path.stem, np.ones((len(ASKED), 16), np.float32))


def no_number(path: Path) -> None:
    EmbeddingCache(path.parent).write(path.stem, np.full((len(ASKED), 32), np.nan, np.float32))


@pytest.mark.parametrize("harm", [cut, flip, empty, another_list, another_shape, no_number])
def test_a_damaged_file_is_told_of_and_computed_again(
    base: BaseModel,
    tmp_path: Path,
    harm: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = keeping(base, tmp_path).embed(ASKED)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    harm(path)
    capsys.readouterr()
    encoder = keeping(base, tmp_path)
    assert encoder.embed(ASKED).tobytes() == expected.tobytes()
    assert encoder.embedded.kept == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "kept embeddings are damaged" in line
    assert path.read_bytes() == whole


def test_past_the_limit_the_oldest_go(tmp_path: Path) -> None:
    vectors = np.ones((10, 32), np.float32)
    EmbeddingCache(tmp_path).write("size", vectors)
    (path,) = files(tmp_path)
    kept = EmbeddingCache(tmp_path, limit=3 * path.stat().st_size)
    path.unlink()
    for age, name in enumerate("cadb"):
        kept.write(name, vectors)
        os.utime(tmp_path / f"{name}.safetensors", ns=(age * 10**9, age * 10**9))
    assert [file_path.stem for file_path in files(tmp_path)] == ["a", "b", "d"]
    assert kept.read("c", (10, 32)) is None
    assert kept.read("b", (10, 32)) is not None


def test_a_list_larger_than_the_limit_pushes_nothing_out(tmp_path: Path) -> None:
    kept = EmbeddingCache(tmp_path, limit=2000)
    kept.write("small", np.ones((10, 32), np.float32))
    kept.write("large", np.ones((1000, 32), np.float32))
    assert [file_path.stem for file_path in files(tmp_path)] == ["small"]


def test_a_disk_that_takes_nothing_costs_nothing_but_a_line(
    base: BaseModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    encoder = keeping(base, tmp_path / "file" / "kept")
    assert encoder.embed(ASKED).tobytes() == models.load(base).embed(ASKED).tobytes()
    assert "embeddings are not kept" in capsys.readouterr().err


def test_the_main_process_alone_reads_and_all_see_what_it_found(tmp_path: Path) -> None:
    vectors = np.arange(64, dtype=np.float32).reshape(2, 32)
    EmbeddingCache(tmp_path).write("list", vectors)
    sent: list[torch.Tensor] = []

    class Main(ProcessGroup):
        def share(
            self, parts: list[torch.Tensor], owners: Sequence[int] = ()
        ) -> list[torch.Tensor]:
            sent.extend(parts)
            return parts

    class Other(ProcessGroup):
        def share(
            self, parts: list[torch.Tensor], owners: Sequence[int] = ()
        ) -> list[torch.Tensor]:
            (part,) = parts
            expected = sent.pop(0)
            assert (part.shape, part.dtype) == (expected.shape, expected.dtype)
            return [expected]

    cpu = torch.device("cpu")
    nowhere = EmbeddingCache(tmp_path / "nothing here")
    for keeps, expected in ((EmbeddingCache(tmp_path), vectors), (nowhere, None)):
        keeps.shared("list", (2, 32), Main(0, 2), cpu)
        found = nowhere.shared("list", (2, 32), Other(1, 2), cpu)
        assert (found is None) == (expected is None)
        assert expected is None or (found is not None and found.tobytes() == expected.tobytes())
        assert sent == []


def test_a_name_is_of_all_and_of_the_order() -> None:
    names = [
        embedding_cache.name(["a", "b"], [[1, 2], [3]]),
        embedding_cache.name(["ab"], [[1, 2], [3]]),
        embedding_cache.name(["b", "a"], [[1, 2], [3]]),
        embedding_cache.name(["a", "b"], [[3], [1, 2]]),
        embedding_cache.name(["a", "b"], [[1, 2, 3]]),
        embedding_cache.name(["a", "b"], []),
    ]
    assert len(set(names)) == len(names)
