"""Which parts of a picture does a word need? Cover them, one by one, and see.

The page "Try it" does the same, in `captionlib/page/try_it.js`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["COVER", "PLACES", "cover", "occlusion", "score_words"]

PLACES = 7  # places of the square that covers, down and across
COVER = 0.25  # its side, as a share of the picture's
GREY = 128


def cover(pixels: Tensor, places: int = PLACES, share: float = COVER) -> Tensor:
    """Copies of a picture, each with one grey square.

    Args:
        pixels: (3, height, width) uint8.
        places: the squares' centres lie on a grid of places x places. At the
            border, squares are cut off.
        share: a square's side, as a share of the picture's.

    Returns:
        (places, places, 3, height, width) uint8.
    """
    covered = pixels.repeat(places, places, 1, 1, 1)
    rows, columns = (_bounds(n, places, share) for n in pixels.shape[1:])
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            covered[i, j, :, row, column] = GREY
    return covered


def _bounds(size: int, places: int, share: float) -> list[slice]:
    centres = (np.arange(places) + 0.5) / places
    ends = [centres - share / 2, centres + share / 2]
    ends = (size * np.clip(ends, 0, 1)).round().astype(int)
    return [slice(start, end) for start, end in ends.T]


def score_words(model, images: Tensor, ids: Sequence[int]) -> Tensor:
    """The log-probability of each word of one caption, for many images.

    Args:
        model: a captioner's model, in eval mode: its `encode`, its
            `vocabulary`, and its decoder's `begin` and `step` are used.
        images: (B, 3, height, width) uint8.
        ids: the caption's words, without `<start>`. Each is scored after the
            words before it.

    Returns:
        (B, len(ids)) float, in nats.
    """
    words = torch.full((len(images),), model.vocabulary.start)
    state = model.decoder.begin(model.encode(images))
    scores = []
    for word in ids:
        logits, _, state = model.decoder.step(words, state)
        scores.append(logits.log_softmax(dim=1)[:, word])
        words = torch.full_like(words, word)
    return torch.stack(scores, dim=1)


@torch.inference_mode()
def occlusion(
    model,
    pixels: Tensor,
    ids: Sequence[int],
    places: int = PLACES,
    share: float = COVER,
) -> np.ndarray:
    """How much less likely each word is if a part of the picture is covered.

    Args:
        model, ids: as for `score_words`.
        pixels: (3, height, width) uint8, as `read_image` reads it.
        places, share: as for `cover`.

    Returns:
        (len(ids), places, places) float32: the fall of a word's
        log-probability, in nats. Below 0, the word became likelier.
    """
    whole = score_words(model, pixels[None], ids)  # (1, T)
    rows = [  # few images in memory at a time
        whole - score_words(model, row, ids)
        for row in cover(pixels, places, share)
    ]
    return torch.stack(rows).permute(2, 0, 1).float().numpy()
