"""Convert a checkpoint of the original tutorial to a captioner.

The tutorial's checkpoints are pickled modules. `captionlib.original.inert`
reads them without running them. The modules found are compared with our own,
layer by layer and shape by shape, and the weights are copied only if all of
them agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from captionlib.config import ModelConfig, SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention
from captionlib.encoder import Encoder, without_head
from captionlib.io import backbones
from captionlib.io.files import (
    InputError,
    atomic_group,
    check_output,
    require_free_space,
)
from captionlib.io.images import IMAGE_SIZE
from captionlib.model import CaptionModel
from captionlib.original.inert import Object, Weight, opened

__all__ = ["KINDS", "convert", "read_original"]

# The classes that a checkpoint may name. Names are compared, never imported.
KINDS = (
    "models Encoder",
    "models Attention",
    "models DecoderWithAttention",
    "torch.nn.modules.container Sequential",
    "torch.nn.modules.conv Conv2d",
    "torch.nn.modules.batchnorm BatchNorm2d",
    "torch.nn.modules.activation ReLU",
    "torch.nn.modules.activation Sigmoid",
    "torch.nn.modules.activation Softmax",
    "torch.nn.modules.pooling MaxPool2d",
    "torch.nn.modules.pooling AdaptiveAvgPool2d",
    "torch.nn.modules.linear Linear",
    "torch.nn.modules.sparse Embedding",
    "torch.nn.modules.dropout Dropout",
    "torch.nn.modules.rnn LSTMCell",
    "torchvision.models.resnet BasicBlock",
    "torchvision.models.resnet Bottleneck",
    "torch.optim.adam Adam",
    "torch.optim.adamw AdamW",
    "torch.optim.sgd SGD",
    "torch.optim.rmsprop RMSprop",
)

# ResNets by block class and number of blocks in each stage (He et al. 2016,
# table 1).
BACKBONES = {
    ("BasicBlock", 2, 2, 2, 2): "resnet18",
    ("BasicBlock", 3, 4, 6, 3): "resnet34",
    ("Bottleneck", 3, 4, 6, 3): "resnet50",
    ("Bottleneck", 3, 4, 23, 3): "resnet101",
    ("Bottleneck", 3, 8, 36, 3): "resnet152",
}

# Layers without weights, for which our modules call functions.
WITHOUT_WEIGHTS = {
    "attention.relu": "ReLU",
    "attention.softmax": "Softmax",
    "sigmoid": "Sigmoid",
}

# Settings that change what a layer computes.
SETTINGS = (
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "eps",
    "ceil_mode",
)


def convert(
    old: str | Path, word_map: str | Path, to: str | Path
) -> CaptionModel:
    """Write a checkpoint of the original tutorial as a captioner's folder.

    Args:
        old: the checkpoint, as the original's `save_checkpoint` writes it;
            nothing in it is run.
        word_map: the `WORDMAP_....json` of its training.
        to: the folder to write; other files in it are kept.

    Returns:
        the model, in eval mode, on the CPU.

    Raises:
        InputError: if a file is damaged, asks for something that no checkpoint
            needs, or holds a model that differs from ours.
    """
    to = Path(to)
    check_output(to / "config.json")
    if (to / "best").exists() or (to / "last").exists():
        raise InputError(f"{to}: holds a training run; name another folder")
    model = read_original(old, word_map)
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    require_free_space(to, weights + 2**20)
    with atomic_group(to, seal="config.json") as folder:
        model.write_files(folder)
    return model


def read_original(old: str | Path, word_map: str | Path) -> CaptionModel:
    """The model in a checkpoint; arguments and errors as for `convert`."""
    vocabulary = Vocabulary.load(word_map)
    with opened(old, KINDS) as (checkpoint, numbers):
        try:
            parts = [
                _modules(_member(checkpoint, name))
                for name in ("encoder", "decoder")
            ]
            config = _config(*parts)
            words = _weight(parts[1], "embedding.weight").size[0]
            if words != len(vocabulary):
                raise InputError(
                    f"{word_map}: has {len(vocabulary)} words, and {old} was "
                    f"trained with {words}; give the word map that it was "
                    "trained with"
                )
            trunk, decoder = _expected(config, words)
            trunk_weights = _matched(_below(parts[0], "resnet"), trunk, numbers)
            decoder_weights = _matched(parts[1], decoder, numbers)
        except _Different as error:
            raise InputError(
                f"{old}: is not the original tutorial's model: {error}"
            ) from None
        metrics = _metrics(checkpoint)
    encoder = Encoder(
        config.backbone,
        grid_size=config.grid_size,
        image_size=config.image_size,
        pretrained=False,
    )
    # Given an encoder, the model saves it with its weights.
    model = CaptionModel(config, vocabulary, encoder)
    nn.Sequential(*encoder.trunk.children()).load_state_dict(
        trunk_weights, strict=False
    )
    model.decoder.load_state_dict(decoder_weights)
    # As in the original: a beam of 5, no length normalisation.
    model.search = asdict(SearchConfig())
    mean, std = backbones.normalisation(encoder.trunk)
    model.metrics = {
        "converted": metrics | {"mean": list(mean), "std": list(std)}
    }
    return model.eval()


class _Different(Exception):
    """The checkpoint is readable, but its model is not the tutorial's."""


def _member(checkpoint, name: str) -> Object:
    if not isinstance(checkpoint, dict) or not isinstance(
        checkpoint.get(name), Object
    ):
        raise _Different(f"it holds no pickled {name}")
    return checkpoint[name]


def _modules(root: Object) -> dict[str, Object]:
    """A module and its submodules, named as by `named_modules`."""
    found, seen, waiting = {}, set(), [("", root)]
    while waiting:
        name, part = waiting.pop()
        # A module that contains itself would make this loop endless.
        if id(part) in seen or len(name) > 100:
            raise _Different(f"{name[:100]} contains itself, or occurs twice")
        seen.add(id(part))
        found[name] = part
        for child, inner in part.state["_modules"].items():
            if inner is not None:
                waiting.append((f"{name}.{child}" if name else child, inner))
    return found


def _below(parts: dict[str, Object], name: str) -> dict[str, Object]:
    inside = [part for part in parts if part.startswith(f"{name}.")]
    return {"": parts[name]} | {
        part.removeprefix(f"{name}."): parts[part] for part in inside
    }


def _weight(parts: dict[str, Object], name: str) -> Weight:
    part, _, own = name.rpartition(".")
    if part not in parts or not isinstance(
        parts[part].state["_parameters"].get(own), Weight
    ):
        raise _Different(f"it holds no {name}")
    return parts[part].state["_parameters"][own]


def _config(
    encoder: dict[str, Object], decoder: dict[str, Object]
) -> ModelConfig:
    """The shape of a model, from its modules."""
    stages = [f"resnet.{i}" for i in (4, 5, 6, 7)]
    outside = {name.split(".")[0] for name in encoder} - {""}
    if (
        outside != {"resnet", "adaptive_pool"}
        or not {"resnet.4.0", *stages} <= encoder.keys()
    ):
        raise _Different("its encoder is not a ResNet with a pooling layer")
    kind = encoder["resnet.4.0"].kind.split()[1]
    blocks = [len(encoder[stage].state["_modules"]) for stage in stages]
    backbone = BACKBONES.get((kind, *blocks))
    if backbone is None:
        known = ", ".join(BACKBONES.values())
        raise _Different(
            f"its encoder has {blocks} blocks of {kind}, unlike {known}"
        )
    size = encoder["adaptive_pool"].state["output_size"]
    height, width = size if isinstance(size, tuple) else (size, size)
    if (
        type(height) is not int
        or height != width
        or not 1 <= height <= IMAGE_SIZE
    ):
        raise _Different("its grid is not square")
    return ModelConfig(
        backbone=backbone,
        grid_size=height,
        image_size=IMAGE_SIZE,
        attention_dim=_weight(decoder, "attention.decoder_att.weight").size[0],
        embed_dim=_weight(decoder, "embedding.weight").size[1],
        decoder_dim=_weight(decoder, "attention.decoder_att.weight").size[1],
        dropout=decoder["dropout"].state["p"] if "dropout" in decoder else 0.0,
    )


def _expected(config: ModelConfig, words: int) -> tuple[nn.Module, nn.Module]:
    """Our trunk and decoder of this shape, without memory for the weights."""
    with torch.device("meta"):
        named = without_head(
            backbones.classifier(config.backbone, pretrained=False)
        )
        trunk = nn.Sequential(*named.children())  # numbered, as in the original
        dim = trunk(torch.zeros(1, 3, 64, 64)).shape[1]
        sizes = (config.attention_dim, config.embed_dim, config.decoder_dim)
        return trunk, DecoderWithAttention(*sizes, words, encoder_dim=dim)


def _matched(
    parts: dict[str, Object],
    ours: nn.Module,
    numbers: Callable[[Weight], Tensor],
) -> dict[str, Tensor]:
    """The weights of `parts` for `ours`, whose modules must be the same."""
    weights = {}
    for name, module in ours.named_modules():
        kind = type(module).__name__
        if name not in parts or parts[name].kind.split()[-1] != kind:
            raise _Different(f"{name or 'one part'} is not a {kind}")
        state = parts[name].state
        for setting in SETTINGS:
            if getattr(module, setting, None) != state.get(
                setting, getattr(module, setting, None)
            ):
                raise _Different(f"{name} has another {setting}")
        expected = dict(module.named_parameters(recurse=False))
        expected |= dict(module.named_buffers(recurse=False))
        found = {
            n: w
            for n, w in (state["_parameters"] | state["_buffers"]).items()
            if w
        }
        # PyTorch 0.4.0 did not have this buffer, and nothing here reads it.
        late = {"num_batches_tracked"}
        if found.keys() - late != expected.keys() - late:
            raise _Different(f"{name} has other weights")
        for own, weight in found.items():
            tensor = numbers(weight)
            if (tensor.shape, tensor.dtype) != (
                expected[own].shape,
                expected[own].dtype,
            ):
                raise _Different(
                    f"{name}.{own} has another shape, {tuple(tensor.shape)}"
                )
            if not tensor.isfinite().all():
                raise _Different(
                    f"{name}.{own} holds values that are not finite"
                )
            weights[f"{name}.{own}"] = tensor
    for name in parts.keys() - {name for name, _ in ours.named_modules()}:
        if parts[name].kind.split()[-1] != WITHOUT_WEIGHTS.get(name):
            raise _Different(f"ours has no {name}")
    return weights


def _metrics(checkpoint: dict) -> dict:
    """The checkpoint's epoch, from 1, and BLEU-4, ×100."""
    epoch, bleu4 = checkpoint.get("epoch"), checkpoint.get("bleu-4")
    found = {}
    if type(epoch) is int:
        found["epoch"] = epoch + 1
    if type(bleu4) is float and math.isfinite(bleu4):
        found["teacher_forced_bleu4"] = 100 * bleu4
    return found
