"""Caption a photo.

Chapter 08 of the book, notebooks/08_caption_a_photo.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from captionlib.config import DecodingConfig, SearchConfig
from captionlib.decoding import write_captions
from captionlib.io.errors import naming, usable
from captionlib.io.files import ASSETS, package_folder
from captionlib.io.images import read_image
from captionlib.model import CaptionModel

__all__ = ["Caption", "Captioner", "SHIPPED", "caption_pixels"]


class Caption(NamedTuple):
    """What a captioner says of one image."""

    words: list[str]  # without <start> and <end>
    text: str  # the words, spaces between
    log_prob: float  # nats, summed over the words and <end>
    alphas: np.ndarray  # (len(words), height, width) float32, each sums to 1
    finished: bool  # False: cut off at the maximum length


@torch.inference_mode()  # nothing is kept for a gradient
def caption_pixels(
    model: CaptionModel, pixels: torch.Tensor, search: SearchConfig
) -> list[Caption]:
    """Caption a batch of images that `read_image` has read.

    Args:
        model: in eval mode.
        pixels: (B, 3, 256, 256) uint8, on any device.
        search: how to look for words.
    """
    device = next(model.parameters()).device
    grids = model.encode(pixels.to(device))  # (B, height, width, D)
    captions = []
    found = write_captions(model.decoder, grids, model.vocabulary, search)
    for (best,) in found:  # one caption an image
        words = model.vocabulary.decode(best.word_ids)
        alphas = best.alphas.float().reshape(len(words), *grids.shape[1:3])
        captions.append(
            Caption(
                words,
                " ".join(words),
                float(best.log_prob),
                alphas.cpu().numpy(),
                best.finished,
            )
        )
    return captions


SHIPPED = ASSETS / "flickr8k"  # the captioner that comes with the package


class Captioner:
    """A trained model that answers any image with a `Caption`.

    Images are paths, `PIL.Image`s or arrays, as `read_image` takes them. A
    `beam_size` of None leaves the search settings that the model came with.
    """

    def __init__(self, model: CaptionModel, search: SearchConfig | None = None):
        self.model = model.eval()
        with usable("the model's search settings"):
            self.search = search or DecodingConfig(**model.search)

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> "Captioner":
        """Load a folder, a packaged model ("toy"), or by default `SHIPPED`."""
        folder = package_folder(SHIPPED if folder is None else folder)
        with naming(folder):
            return cls(CaptionModel.load(folder))

    def caption(self, image, beam_size: int | None = None) -> Caption:
        """Caption one image."""
        return self.caption_batch([image], beam_size)[0]

    def caption_batch(
        self, images: Iterable, beam_size: int | None = None, batch_size=32
    ) -> list[Caption]:
        """Caption many images, `batch_size` of them in memory at a time."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        beam = {} if beam_size is None else {"beam_size": beam_size}
        search = replace(self.search, **beam)
        images, captions = iter(images), []
        while batch := [read_image(i) for i in islice(images, batch_size)]:
            pixels = torch.from_numpy(np.stack(batch))
            captions += caption_pixels(self.model, pixels, search)
        return captions
