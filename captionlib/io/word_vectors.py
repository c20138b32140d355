"""Pretrained word vectors, in the word map's order."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from captionlib.io.files import InputError

__all__ = ["read_glove"]


def read_glove(
    path: str | Path, word_map: dict[str, int]
) -> tuple[Tensor, list[str]]:
    """Read word vectors in GloVe's text format, in the word map's order.

    Args:
        path: a text file, each line a word and its E numbers, separated by
            spaces.
        word_map: word to row number, covering 0 to V - 1.

    Returns:
        embeddings (V, E) float32; the words that were found. The vectors of the
        others are drawn from a normal distribution with the found vectors' mean
        and standard deviation in each dimension, with a fixed seed.

    Raises:
        InputError: if the file is missing, is not in this format, or holds none
            of the words.
    """
    vectors: dict[str, list[float]] = {}
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                word, *values = line.rstrip().split(" ")
                if number == 1:
                    size = len(values)
                if len(values) != size or size == 0:
                    raise ValueError
                if word in word_map:
                    vectors[word] = [float(value) for value in values]
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; check the path of the word vectors"
        ) from None
    except (OSError, UnicodeDecodeError, ValueError):
        raise InputError(
            f"{path}: is not a file of word vectors; each line must be a word "
            "and its numbers"
        ) from None
    if not vectors:
        raise InputError(
            f"{path}: knows none of the vocabulary's words; is it the right "
            "language?"
        )
    found = torch.tensor(list(vectors.values()))  # (found, E)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(word_map), found.shape[1], generator=generator)
    embeddings = found.mean(dim=0) + found.std(dim=0, correction=0) * noise
    rows = torch.tensor([word_map[word] for word in vectors])
    embeddings[rows] = found
    return embeddings, list(vectors)
