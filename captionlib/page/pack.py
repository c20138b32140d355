"""A captioner's weights as the engine in the page reads them.

Batch normalisation is folded into the convolutions, which it follows. What is
left are matrices of `out` channels by `in` numbers, each with a bias. A matrix
is stored in panels of 8 channels, as engine.c wants them, either in float16 or
in whole numbers from -127 to 127 with a scale per channel. The engine turns
both into float32 once, when it loads them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from captionlib.config import SearchConfig
from captionlib.encoder import Encoder
from captionlib.io.efficientnet_lite import EfficientNetLite, NormReLU6
from captionlib.io.files import InputError
from captionlib.io.int8 import dequantise, quantise
from captionlib.model import CaptionEnsemble, CaptionModel
from captionlib.model.caption_model import require_lstm

__all__ = ["NUMBERS", "Packed", "fold_norms", "pack", "round_weights"]

Captioning = CaptionModel | CaptionEnsemble
NUMBERS = ("int8", "float16")
PANEL = 8  # output channels side by side
PART = 1_000_000  # bytes of weights, about, that are loaded at a time


class Packed(NamedTuple):
    """A model for the page: a description for JSON, and its weights."""

    model: dict
    parts: list[bytes]


class Matrix(NamedTuple):
    """A layer's parameters, in the model's own shapes."""

    name: str
    weight: Tensor  # (out, in / groups, ...)
    bias: Tensor | None  # (out,)

    def rows(self) -> np.ndarray:
        """(out, in) float32; a filter's numbers by row, column, channel."""
        return self.weight.detach().movedim(1, -1).flatten(1).numpy()


def pack(model: Captioning, numbers: str = "int8") -> Packed:
    """Pack a captioner whose encoder is an EfficientNet-Lite.

    Args:
        model: in eval mode, on the CPU; stays as it is. An ensemble's members
            share their encoder.
        numbers: one of `NUMBERS`.

    Raises:
        InputError: if the engine has no layers for this encoder or decoder, or
            there are several encoders.
    """
    require_lstm(model, "the page's engine")
    if not isinstance(_encoder(model).trunk, EfficientNetLite):
        raise InputError(
            f"{_encoder(model).backbone}: the page's engine runs "
            "tf_efficientnet_lite0, 1 and 2 only; train with one of these"
        )
    model = fold_norms(model)
    matrices, parts = {}, [bytearray()]
    for matrix in _matrices(model):
        stored = _encode(matrix, numbers)
        if parts[-1] and len(parts[-1]) + len(stored) > PART:
            parts.append(bytearray())
        matrices[matrix.name] = {
            "out": len(matrix.weight),
            "in": matrix.rows().shape[1],
            "part": len(parts) - 1,
            "at": len(parts[-1]),
        }
        parts[-1] += stored
    return Packed(
        {
            "numbers": numbers,
            "parts": len(parts),
            "encoder": _describe_encoder(_encoder(model)),
            "members": [prefix for prefix, _ in _members(model)],
            "matrices": matrices,
            "words": model.vocabulary.words,
            "search": _search_settings(model),
        },
        [bytes(part) for part in parts],
    )


def _members(model: Captioning) -> list[tuple[str, CaptionModel]]:
    """The captioners in `model`, with the prefix of their matrices' names."""
    if isinstance(model, CaptionModel):
        return [("", model)]
    members = enumerate(model.members)
    return [(f"members.{number}.", member) for number, member in members]


def _encoder(model: Captioning) -> Encoder:
    """The encoder of all members."""
    encoders = {member.encoder for _, member in _members(model)}
    if len(encoders) > 1:
        raise InputError(
            f"an ensemble with {len(encoders)} encoders: the page's engine "
            "runs one; train its members on the same encoder"
        )
    return encoders.pop()


def fold_norms(model: Captioning) -> Captioning:
    """A copy whose batch normalisations only add their bias.

    y = (w · x - mean) / sqrt(var + eps) * weight + bias is one convolution:
    its filters are w * gain with gain = weight / sqrt(var + eps), and
    bias - mean * gain is added.
    """
    model = copy.deepcopy(model)
    with torch.no_grad():
        for _, convolution, norm in _convolutions(_encoder(model).trunk):
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            convolution.weight *= gain.view(-1, 1, 1, 1)
            norm.bias -= norm.running_mean * gain
            norm.weight.fill_(1)
            norm.running_mean.fill_(0)
            norm.running_var.fill_(1 - norm.eps)
    return model


def round_weights(model: Captioning, numbers: str) -> Captioning:
    """A copy that computes, in Python, with the page's weights."""
    model = fold_norms(model)
    with torch.no_grad():
        for matrix in _matrices(model):
            weight = matrix.weight.flatten(1)
            if numbers == "float16":
                rounded = weight.half().float()
            else:
                rounded = dequantise(*quantise(weight))
            matrix.weight.copy_(rounded.view_as(matrix.weight))
    return model


def _convolutions(
    trunk: EfficientNetLite,
) -> Iterator[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    """Every convolution with its name, and the normalisation behind it."""
    named = list(trunk.named_modules())
    convolutions = [pair for pair in named if isinstance(pair[1], nn.Conv2d)]
    norms = [layer for _, layer in named if isinstance(layer, nn.BatchNorm2d)]
    for (name, convolution), norm in zip(convolutions, norms, strict=True):
        yield name, convolution, norm


def _matrices(model: Captioning) -> Iterator[Matrix]:
    """All that the page needs, in the order of their use."""
    for name, convolution, norm in _convolutions(_encoder(model).trunk):
        yield Matrix(name, convolution.weight, norm.bias)
    for prefix, member in _members(model):
        for name, layer in member.named_modules(prefix=prefix.rstrip(".")):
            if isinstance(layer, nn.Linear):
                yield Matrix(name, layer.weight, layer.bias)
            elif isinstance(layer, nn.Embedding):
                yield Matrix(name, layer.weight, None)
            elif isinstance(layer, nn.LSTMCell):
                yield Matrix(f"{name}.ih", layer.weight_ih, layer.bias_ih)
                yield Matrix(f"{name}.hh", layer.weight_hh, layer.bias_hh)


def _encode(matrix: Matrix, numbers: str) -> bytes:
    """Bias, then scales if there are any, then the panels."""
    weight = matrix.rows()
    more = -len(weight) % PANEL
    bias = np.zeros(len(weight), np.float32)
    if matrix.bias is not None:
        bias = matrix.bias.detach().numpy()
    scales = b""
    if numbers == "float16":
        codes = weight.astype("<f2")
    else:
        codes, scale = (
            tensor.numpy() for tensor in quantise(torch.from_numpy(weight))
        )
        scales = np.pad(scale, (0, more)).astype("<f4").tobytes()
    codes = np.pad(codes, ((0, more), (0, 0)))
    panels = codes.reshape(-1, PANEL, codes.shape[1]).swapaxes(1, 2)
    bias = np.pad(bias, (0, more)).astype("<f4")
    return bias.tobytes() + scales + panels.tobytes()


def _describe_encoder(encoder: Encoder) -> dict:
    """Its blocks of layers, and the pictures it expects."""
    blocks, at = [], None
    for name, convolution, norm in _convolutions(encoder.trunk):
        block = name.rpartition(".")[0]  # blocks.2.0, or none: stem and head
        if block != at or not block:
            shortcut = block and encoder.trunk.get_submodule(block).shortcut
            blocks.append({"shortcut": bool(shortcut), "layers": []})
        at = block
        depthwise = convolution.groups > 1
        blocks[-1]["layers"].append(
            {
                "matrix": name,
                "depthwise": depthwise,
                "kernel": convolution.kernel_size[0],
                "stride": convolution.stride[0],
                "relu6": isinstance(norm, NormReLU6),
            }
        )
    return {
        "image_size": encoder.image_size,
        "grid_size": encoder.grid_size,
        "mean": encoder.mean.flatten().tolist(),
        "std": encoder.std.flatten().tolist(),
        "blocks": blocks,
    }


def _search_settings(model: Captioning) -> dict:
    """The settings of a plain beam search that the model came with."""
    known = {field.name for field in fields(SearchConfig)}
    given = {k: v for k, v in model.search.items() if k in known}
    return asdict(SearchConfig(**given))
