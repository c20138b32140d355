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

from captionlib.beam_search import Hypothesis
from captionlib.config import DecodingConfig, SearchConfig
from captionlib.decoding import write_captions
from captionlib.io.files import ASSETS, InputError, package_folder
from captionlib.io.images import read_image
from captionlib.model import CaptionModel

__all__ = ["Caption", "Captioner", "SHIPPED"]


class Caption(NamedTuple):
    """What a captioner says of one image."""

    words: list[str]  # without <start> and <end>
    text: str  # the words, spaces between
    log_prob: float  # nats, summed over the words and <end>
    alphas: (
        np.ndarray
    )  # (len(words), height, width) float32: each word's map adds up to 1
    finished: bool  # False: cut off at the longest length


SHIPPED = (
    ASSETS / "flickr8k"
)  # where the captioner that comes with the package is found


class Captioner:
    """A trained model that answers any image with a `Caption`.

    Args:
        model: used in eval mode, on the device where its weights are.
        search: how to look for words; by default the settings that are stored with the model.

    Raises:
        InputError: if the model's stored settings are none of `SearchConfig`.
    """

    def __init__(self, model: CaptionModel, search: SearchConfig | None = None):
        self.model = model.eval()
        try:
            self.search = search or DecodingConfig(**model.search)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the model's search settings are no use ({error})"
            ) from None

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> "Captioner":
        """Load a captioner, on the CPU.

        Args:
            folder: what training wrote (its `best` is taken), or a packaged model's name ("toy").
                None means the captioner that comes with the package.

        Raises:
            InputError: if there is none, or it can't be read.
        """
        if folder is None and not SHIPPED.is_dir():
            raise InputError(
                "no captioner comes with this version of captionlib; train one and name its folder "
                '(or "toy", which knows the toy world only)'
            )
        folder = package_folder(SHIPPED if folder is None else folder)
        try:
            return cls(CaptionModel.load(folder))
        except InputError as error:
            where = "" if str(folder) in str(error) else f"{folder}: "
            raise InputError(f"{where}{error}") from None

    def caption(self, image, beam_size: int | None = None) -> Caption:
        """Caption one image: a path, a `PIL.Image` or an array, as `read_image` takes it.

        Args:
            image: what to describe.
            beam_size: hypotheses kept; None leaves the model's setting.

        Raises:
            InputError: if the image can't be read.
        """
        return self.caption_batch([image], beam_size)[0]

    def caption_batch(
        self,
        images: Iterable,
        beam_size: int | None = None,
        batch_size: int = 32,
    ) -> list[Caption]:
        """Caption many images, each as `caption` would alone.

        Args:
            images: each as `caption` takes it; an iterator is read a batch at a time.
            beam_size: hypotheses kept; None leaves the model's setting.
            batch_size: images in memory, and in a matrix product, at once.

        Returns:
            one `Caption` an image, in order.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        search = (
            self.search
            if beam_size is None
            else replace(self.search, beam_size=beam_size)
        )
        images, captions = iter(images), []
        while batch := [
            read_image(image) for image in islice(images, batch_size)
        ]:
            captions += self._caption_pixels(
                torch.from_numpy(np.stack(batch)), search
            )
        return captions

    @torch.inference_mode()  # nothing is kept for a gradient: memory stays that of one batch
    def _caption_pixels(
        self, pixels: torch.Tensor, search: SearchConfig
    ) -> list[Caption]:
        device = next(self.model.parameters()).device
        encoder_out = self.model.encode(
            pixels.to(device)
        )  # (B, height, width, D)
        found = write_captions(
            self.model.decoder, encoder_out, self.model.vocabulary, search
        )
        return [self._answer(best, encoder_out.shape[1:3]) for (best,) in found]

    def _answer(self, best: Hypothesis, grid: tuple[int, int]) -> Caption:
        words = self.model.vocabulary.decode(best.word_ids)
        alphas = best.alphas.float().reshape(len(words), *grid).cpu().numpy()
        return Caption(
            words, " ".join(words), float(best.log_prob), alphas, best.finished
        )
