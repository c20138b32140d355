"""torchvision and timm, imported so that they load beside any build of torch.

PyPI's torchvision wheels are compiled against CUDA. Beside a CPU-only torch their compiled
detection operators cannot load, and the import stops because two of them, ``nms`` and ``qnms``,
have never been declared. The image models that this package uses are plain Python and need
neither, so declaring the two is all the mending it takes.
"""

import importlib
import re

import torch

__all__ = ["timm", "torchvision"]

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _import_torchvision():
    for _ in range(3):
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            missing = re.search(r"torchvision::q?nms(?= does not exist)", str(error))
            if missing is None:
                raise
            torch.library.define(missing.group(), _SIGNATURE)
    return importlib.import_module("torchvision")


torchvision = _import_torchvision()

import timm  # noqa: E402  (it imports torchvision itself, so it must come second)
