"""Everything a training depends on besides model and data."""

from __future__ import annotations

from dataclasses import dataclass

from captionlib.config.settings import Settings, setting

__all__ = ["EngineConfig", "TrainConfig"]


@dataclass(frozen=True)
class TrainConfig(Settings):
    """Training as chapter 05 builds it."""

    epochs: int = setting(
        120, "at most; early stopping usually ends sooner", at_least=1
    )
    batch_size: int = setting(
        32, "images a batch, each with all its captions", at_least=1
    )
    learning_rate: float = setting(4e-4, "Adam's, for the decoder", above=0)
    encoder_learning_rate: float = setting(
        1e-4, "Adam's, for an encoder that is fine-tuned", above=0
    )
    schedule: str = setting(
        "plateau",
        "plateau or one_cycle",
        choices=("plateau", "one_cycle"),
    )
    decay: float = setting(
        0.8, "plateau: factor on the learning rates", above=0
    )
    decay_after: int = setting(
        8, "plateau: epochs without a better BLEU-4 before a cut", at_least=1
    )
    patience: int = setting(
        20, "epochs without a better BLEU-4 before training ends", at_least=1
    )
    alpha_c: float = setting(1.0, "weight of doubly stochastic attention")
    label_smoothing: float = setting(
        0.0,
        "share of each target spread over the vocabulary",
        at_least=0,
        below=1,
    )
    weight_decay: float = setting(0.0, "AdamW's", at_least=0, below=1)
    max_grad_norm: float = setting(
        5.0, "clip the gradient of all weights together to this length", above=0
    )
    seed: int = setting(0, "of weights, order and dropout")


@dataclass(frozen=True)
class EngineConfig(TrainConfig):
    """Training for real: `TrainConfig` plus what `captionlib.engine` adds.

    `bf16` is True, False or "auto", however it was spelled;
    `captionlib.engine.precision` makes one of the first two of the third.
    """

    averaging: float = setting(
        0.0,
        "judge and keep a running average of the weights, such as 0.998",
        at_least=0,
        below=1,
    )
    own_words: float = setting(
        0.0,
        "scheduled sampling: share of the model's own words fed at the end",
        at_least=0,
        at_most=1,
    )
    own_words_ramp: str = setting(
        "linear",
        "how that share climbs: linear, exponential or inverse_sigmoid",
        choices=("linear", "exponential", "inverse_sigmoid"),
    )
    bf16: bool | str = setting(
        False,
        "multiply in bfloat16; auto: where that is faster here, which is measured",
        choices=("off", "on", "auto"),
    )
    compile: bool = setting(
        False, "fuse operations by torch.compile, on a GPU: slow to begin"
    )
    fine_tune_encoder: bool = setting(
        False, "train the encoder's later stages too"
    )
    keep: str = setting(
        "best",
        "what becomes the captioner: the epoch with the best BLEU-4, or the end",
        choices=("best", "end"),
    )

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.bf16, str) and self.bf16 != "auto":
            object.__setattr__(self, "bf16", self.bf16 == "on")
