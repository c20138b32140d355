"""Convert a picture from its own ICC profile to sRGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

__all__ = ["to_srgb"]

# The colour space that a profile must be about, by the picture's mode.
SPACES = {"CMYK": "CMYK", "LAB": "Lab"} | dict.fromkeys(
    ("1", "L", "LA", "La", "I", "F"), "GRAY"
)
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
SAME = 2  # levels of 255: two builders' sRGB profiles differ by rounding


def to_srgb(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """The function that turns parts of `image` into sRGB; None if it is sRGB.

    The parts have the mode CMYK if the image has; otherwise RGB. A profile that
    is broken, or about other colours than the image's, counts as sRGB.
    """
    profile = image.info.get("icc_profile")
    mode = image.mode.partition(";")[0]
    if not isinstance(profile, bytes) or not profile:
        return None
    return _transform(profile, SPACES.get(mode, "RGB"))


@lru_cache(maxsize=8)  # a camera's photographs all have the same one
def _transform(profile: bytes, space: str):
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if own.profile.xcolor_space.strip() != space or space not in MODES:
            return None
        mode, srgb = MODES[space], ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(own, srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None

    def convert(part: Image.Image) -> Image.Image:
        return ImageCms.applyTransform(part.convert(mode), transform)

    return None if mode != "CMYK" and _is_srgb(convert, mode) else convert


def _is_srgb(convert: Callable, mode: str) -> bool:
    """Whether a grid of colours, or every grey, stays as it is."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(18, -1, 3)
    greys = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    before = greys if mode == "L" else cube
    after = np.asarray(convert(Image.fromarray(before)))
    return np.abs(after.astype(int) - before).max() <= SAME
