"""The shape of a caption model."""

from __future__ import annotations

from dataclasses import dataclass

from captionlib.config.settings import Settings, setting

__all__ = ["ModelConfig"]

SIZE = {"at_least": 1, "at_most": 16_384}


@dataclass(frozen=True)
class ModelConfig(Settings):
    """The shape of a caption model. The defaults train on a laptop."""

    backbone: str = setting(
        "tf_efficientnet_lite0",
        "encoder: resnet101, or a name that timm knows",
        metavar="NAME",
    )
    grid_size: int | None = setting(
        None,
        "resize the encoder's grid to this many cells per side",
        at_least=1,
        at_most=256,
        unset="the encoder's own",
    )
    image_size: int | None = setting(
        None,
        "first resize images to this many pixels per side",
        at_least=32,
        at_most=2048,
        unset="256, as stored",
    )
    feature_dim: int | None = setting(
        None,
        "project annotation vectors to this length by a learned layer",
        **SIZE,
        unset="the encoder's length",
    )
    attention_dim: int = setting(
        512, "size of queries and keys in the attention", **SIZE
    )
    embed_dim: int = setting(512, "size of a word vector", **SIZE)
    decoder_dim: int = setting(512, "size of the LSTM state", **SIZE)
    dropout: float = setting(
        0.5,
        "dropout on the hidden state before the vocabulary layer",
        at_least=0,
        below=1,
    )
    feature_dropout: float = setting(
        0.0, "dropout on the annotation vectors", at_least=0, below=1
    )
