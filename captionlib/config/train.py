"""Settings of training, besides model and data."""

from __future__ import annotations

from dataclasses import dataclass

from captionlib.config.settings import SEED, Settings, setting

__all__ = ["EngineConfig", "TrainConfig"]


@dataclass(frozen=True)
class TrainConfig(Settings):
    """Settings of training as chapter 05 builds it."""

    epochs: int = setting(
        120,
        "maximum number; early stopping usually ends sooner",
        at_least=1,
        at_most=1_000_000,
    )
    batch_size: int = setting(
        32,
        "images per batch, each with all its captions",
        at_least=1,
        at_most=65_536,
    )
    learning_rate: float = setting(
        4e-4, "learning rate of the decoder", above=0, at_most=1
    )
    encoder_learning_rate: float = setting(
        1e-4, "learning rate of a fine-tuned encoder", above=0, at_most=1
    )
    schedule: str = setting(
        "plateau",
        "learning rate schedule",
        choices=("plateau", "one_cycle"),
    )
    decay: float = setting(
        0.8, "plateau: factor on the learning rates", above=0, at_most=1
    )
    decay_after: int = setting(
        8,
        "plateau: epochs without a better BLEU-4 before each cut",
        at_least=1,
    )
    patience: int = setting(
        20, "epochs without a better BLEU-4 before training ends", at_least=1
    )
    alpha_c: float = setting(
        1.0,
        "weight of the doubly stochastic penalty",
        at_least=0,
        at_most=1000,
    )
    label_smoothing: float = setting(
        0.0,
        "probability of each target spread over the vocabulary",
        at_least=0,
        below=1,
    )
    weight_decay: float = setting(
        0.0, "weight decay of AdamW", at_least=0, below=1
    )
    max_grad_norm: float = setting(
        5.0, "clip the norm of the whole gradient to this value", above=0
    )
    seed: int = setting(
        0, "seed of initial weights, data order and dropout", **SEED
    )


@dataclass(frozen=True)
class EngineConfig(TrainConfig):
    """Settings of the engine: `TrainConfig` plus what `captionlib.engine` adds.

    `bf16` is stored as True, False or "auto"; `captionlib.engine.precision`
    resolves "auto" to one of the other two.
    """

    objective: str = setting(
        "cross_entropy",
        "what to minimise; self_critical rewards whole captions by CIDEr-D, "
        "and needs --start-from or an earlier stage",
        choices=("cross_entropy", "self_critical"),
    )
    reward_samples: int = setting(
        5,
        "self_critical: captions written for each image and compared",
        at_least=2,
        at_most=1000,
    )
    cross_entropy_share: float = setting(
        0.0,
        "self_critical: weight of cross-entropy in the objective; the rest is "
        "the reward's",
        at_least=0,
        at_most=1,
    )
    averaging: float = setting(
        0.0,
        "validate and save a running average of the weights with this decay, "
        "such as 0.998",
        at_least=0,
        below=1,
    )
    own_words: float = setting(
        0.0,
        "scheduled sampling: final share of the model's own words in its input",
        at_least=0,
        at_most=1,
    )
    own_words_ramp: str = setting(
        "linear",
        "how that share grows",
        choices=("linear", "exponential", "inverse_sigmoid"),
    )
    bf16: bool | str = setting(
        False,
        "train in bfloat16; auto: if it is measured to be faster",
        choices=("off", "on", "auto"),
    )
    compile: bool = setting(
        False, "fuse operations with torch.compile, on a GPU; slow to start"
    )
    fine_tune_encoder: bool = setting(
        False, "train the encoder's later stages, too"
    )
    keep: str = setting(
        "best",
        "weights to keep: of the epoch with the best BLEU-4, or of the last",
        choices=("best", "end"),
    )

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.bf16, str) and self.bf16 != "auto":
            object.__setattr__(self, "bf16", self.bf16 == "on")
        if self.objective == "self_critical" and self.own_words:
            raise ValueError(
                "own_words must be 0 with objective self_critical, in which "
                f"all words are the model's own, got {self.own_words}"
            )
