"""Section `[training]`: batches, loss and optimizer."""

from typing import Literal

from pydantic import Field

from parity.run.config.section import Section


class TrainingConfig(Section):
    """How an adapter is trained."""

    method: Literal["lora", "all"] = "lora"
    """Trained weights: a LoRA adapter, or all weights (needs `encoder.precision = "fp32"`)."""
    r: int = Field(16, ge=1)
    """Rank of the LoRA matrices (PEFT `r`)."""
    lora_alpha: float = Field(32.0, gt=0.0)
    """Scale of the LoRA update (PEFT `lora_alpha`); the factor is `lora_alpha / r`."""
    lora_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout probability in front of the LoRA matrices, 0 to 1."""
    target_modules: tuple[str, ...] = ()
    """Names of the linear layers with LoRA (PEFT `target_modules`); empty means all of them."""
    target_parameters: tuple[str, ...] = ()
    """Names of weights with LoRA that are not linear layers (PEFT `target_parameters`), such as
    `mlp.experts.gate_up_proj` of a mixture of experts."""
    epochs: int = Field(2, ge=1)
    """Number of passes over the train queries."""
    learning_rate: float = Field(1e-4, gt=0.0)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(5, ge=0)
    """Number of optimizer steps of linear warmup."""
    weight_decay: float = Field(0.0, ge=0.0)
    """Weight decay of AdamW; norms and biases are not decayed."""
    max_grad_norm: float = Field(1.0, gt=0.0)
    """Maximum gradient norm; larger gradients are clipped."""
    batch_size: int = Field(16, ge=1)
    """Queries (or questions, see `group_by`) in a batch."""
    batch_tokens: int = Field(0, ge=0)
    """Maximum packed tokens in a batch, which then gets fewer queries; 0 means no limit."""
    group_by: Literal["row", "question"] = "row"
    """What `batch_size` counts: single queries, or questions with all their labeled queries."""
    passages: Literal["unique", "distinct"] = "unique"
    """`unique`: each passage once in a batch, all positives masked; `distinct`: in addition, no two
    queries of a batch share a positive."""
    train_group_size: int = Field(8, ge=2)
    """Passages for each query: one positive and `train_group_size - 1` negatives."""
    loss: Literal["infonce", "flagembedding"] = "infonce"
    """Contrastive loss and batch layout: this package's InfoNCE, or FlagEmbedding's."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Number of batches in an optimizer step."""
    temperature: float = Field(0.02, gt=0.0)
    """Divisor of the cosine similarities in the loss."""
    distillation: Literal["none", "kl_div", "m3_kd_loss"] = "none"
    """Distillation loss on a teacher's scores, which come with the negatives (FlagEmbedding)."""
    token_budget: int = Field(16384, ge=64)
    """Packed tokens in one forward with gradients; a larger batch is cut and uses GradCache."""
    gradient_checkpointing: bool = False
    """Whether activations are recomputed in the backward pass to save memory."""
    examples: Literal["", "none", "fixed", "batch", "question", "random"] = ""
    """How few-shot examples are chosen for training queries; empty means the same as
    `prompt.examples`."""
    init_from: str = Field("parent", min_length=1)
    """Initial weights: `parent` (the best adapter of the previous round; in round 0 the base
    model), `base`, or another adapter, such as `OTHER_RUN/round-0/best` or `round-0/epoch-5`; the
    latter counts from round 1 on, and round 0 starts as with `parent`."""
    minutes: float = Field(0.0, ge=0.0)
    """Limit on training time in minutes, converted to a step count once; 0 means no limit."""
    checkpoint_every: int = Field(20, ge=1)
    """Optimizer steps between checkpoints."""
    tracker: Literal["none", "trackio", "wandb", "tensorboard"] = "none"
    """Experiment tracker that receives loss and learning rate."""
    seed: int = 0
    """Random seed of batches, dropout and LoRA initialization."""
