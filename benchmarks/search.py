"""Beam search with five beams, from encodings: batched and image by image.

Chapter 06's naive search is compared with the exported one, in float32 and
under bfloat16 autocast, and with the time of the search's matrix products
alone; at the sizes of the original tutorial and of the shipped captioner. The
decoders are random but end captions at a realistic length. In float32, both
searches must find the same captions, except for ties. Peak memory is given
without weights and encodings.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import (
    Row,
    from_chapter,
    highest_megabytes,
    in_fresh_process,
    median_seconds,
)
from captionlib.beam_search import beam_search
from captionlib.config import SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention
from captionlib.model.attention import BlockwiseAttention

IMAGES = 32


class Sizes(NamedTuple):
    """The sizes that determine a search's cost."""

    positions: int  # of the grid, P
    encoder_dim: int  # D
    words: int  # V
    attention_dim: int  # A
    embed_dim: int  # E
    decoder_dim: int  # H


SIZES = {
    "the original's sizes": Sizes(14 * 14, 2048, 9490, 512, 512, 512),
    "the shipped captioner's sizes": Sizes(9 * 9, 512, 2539, 256, 256, 512),
}
# Speed relative to the naive search, in float32 and in bfloat16.
TARGETS = {
    "the original's sizes": (8, 12),
    "the shipped captioner's sizes": (2.5, None),
}
CONFIG = SearchConfig(beam_size=5)


def make_case(sizes: str) -> tuple[DecoderWithAttention, Tensor, Vocabulary]:
    """A random decoder, as confident as a trained one, and encodings.

    Its first unit counts the words, from a number that the image brings along,
    and makes `<end>` likelier each time.
    """
    P, D, V, A, E, H = SIZES[sizes]
    vocabulary = Vocabulary.build(
        [[f"w{i}" for i in range(V - 4)]], min_word_freq=1
    )
    torch.manual_seed(0)
    encoder_out = (
        torch.randn(IMAGES, P, D).add_(torch.randn(IMAGES, 1, D)).relu_()
    )
    encoder_out[:, :, 0] = torch.rand(IMAGES, 1)
    decoder = DecoderWithAttention(A, E, H, V, D).eval()
    cell, fc = decoder.decode_step, decoder.fc
    with torch.no_grad():
        fc.weight.mul_(12)
        decoder.embedding.weight.mul_(20)
        decoder.init_c.weight[0] = 0
        decoder.init_c.weight[0, 0], decoder.init_c.bias[0] = 1, -1.2
        for weight in (
            cell.weight_ih,
            cell.weight_hh,
            cell.bias_ih,
            cell.bias_hh,
        ):
            weight.view(4, H, -1)[:, 0] = 0
        # Each step adds tanh(0.1)
        cell.bias_hh.view(4, H)[:, 0] = torch.tensor([9, 9, 0.1, 9])
        fc.weight[vocabulary.end, 0] = 50
    decoder.attention = BlockwiseAttention(decoder.attention)
    return decoder, encoder_out, vocabulary


def naive_search():
    """The chapter's search, for each image: (log-probability, words,
    alphas)."""
    one = from_chapter("06_beam_search", "def naive_search")["naive_search"]

    def search(decoder, encoder_out, vocabulary):
        return [
            one(decoder, grid, vocabulary, CONFIG.beam_size)
            for grid in encoder_out
        ]

    return search


def batched_search(decoder, encoder_out, vocabulary):
    return beam_search(decoder, encoder_out, vocabulary, CONFIG)


def bf16_search(decoder, encoder_out, vocabulary):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return beam_search(decoder, encoder_out, vocabulary, CONFIG)


def products(decoder, encoder_out, vocabulary):
    """A function that only does the matrix products of one search."""
    B, P, D = encoder_out.shape
    V, k = len(vocabulary), CONFIG.beam_size
    A, H = decoder.attention.decoder_att.weight.shape
    calls, step = [], decoder.step

    def spy(words, state):
        calls.append((len(state.values), len(words)))
        return step(words, state)

    decoder.step = spy
    batched_search(decoder, encoder_out, vocabulary)
    del decoder.step
    shapes = {
        "words": (H, V),
        "gate": (H, D),
        "attention": (H, A),
        "LSTM": (H, 4 * H),
    }
    weights = {
        name: torch.randn(shape[::-1]).T for name, shape in shapes.items()
    }
    inputs = torch.randn(B * k, decoder.embedding.embedding_dim + D)
    hidden = torch.randn(B * k, H)
    from_inputs = torch.randn(4 * H, inputs.shape[1]).T
    project = torch.randn(A, D).T
    first = torch.randn(2 * H, D).T
    relevance = torch.randn(k * P, A)
    score = torch.randn(A, 1)
    alpha = torch.randn(B, k, P)

    def run():
        encoder_out.view(B * P, D) @ project
        encoder_out[:, 0] @ first
        for images, rows in calls:
            for weight in weights.values():
                hidden[:rows] @ weight
            inputs[:rows] @ from_inputs
            for _ in range(images):
                relevance[: rows // images * P] @ score
            alpha[:images, : rows // images].bmm(encoder_out[:images])

    return run


def growth(sizes: str, name: str) -> float:
    """Megabytes by which a search raises the peak memory of this new
    process."""
    case = make_case(sizes)
    searches = {
        "naive": naive_search(),
        "batched": batched_search,
        "bf16": bf16_search,
    }
    before = highest_megabytes()
    searches[name](*case)
    return highest_megabytes() - before


def check_same(naive: list, found: list) -> int:
    """Assert that captions equal the naive search's or tie; count the ties."""
    ties = 0
    for (log_prob, words, _), hypothesis in zip(naive, found, strict=True):
        assert abs(log_prob - hypothesis.log_prob) < 1e-4 * max(
            1, abs(log_prob)
        ), "not the same"
        ties += words != hypothesis.word_ids
    return ties


def compare(
    sizes: str, least: float, least_bf16: float | None, rounds: int = 3
) -> list[Row]:
    """Time one size, print the times, and return the rows of the table."""
    case, naive = make_case(sizes), naive_search()
    ties = check_same(naive(*case), found := batched_search(*case))
    words = sum(len(hypothesis.word_ids) for hypothesis in found) / IMAGES
    seconds = median_seconds(
        {
            "naive": lambda: naive(*case),
            "batched": lambda: batched_search(*case),
            "bf16": lambda: bf16_search(*case),
            "products": products(*case),
        },
        rounds,
    )
    size = SIZES[sizes]
    print(
        f"beam search, {IMAGES} images at {sizes}: "
        f"{size.positions}x{size.encoder_dim} grid, {size.words} words, "
        f"{words:.1f} a caption"
    )
    memory = {}
    for name in ("naive", "batched", "bf16"):
        memory[name] = in_fresh_process(growth, sizes, name)
        ratio = seconds["naive"] / seconds[name]
        print(
            f"  {name:<8} {1000 * seconds[name]:7.0f} ms {ratio:6.1f} times "
            f"{memory[name]:6.0f} MB"
        )
    share = seconds["products"] / seconds["batched"]
    print(
        f"  the float32 products alone take {100 * share:.0f}% of the batched "
        "search's time"
    )
    print(f"  same captions in float32, {ties} of them tied with another")
    return [
        Row(
            f"beam search at {sizes}",
            seconds["naive"] / seconds["batched"],
            "×",
            least,
        ),
        Row(
            "the same, in bfloat16",
            seconds["naive"] / seconds["bf16"],
            "×",
            least_bf16,
        ),
        Row("time that its matrix products alone take", 100 * share, "%"),
        Row(f"peak memory of {IMAGES} images at once", memory["batched"], "MB"),
    ]


def main() -> list[Row]:
    """Compare all sizes."""
    return [
        row
        for sizes, targets in TARGETS.items()
        for row in compare(sizes, *targets)
    ]


if __name__ == "__main__":
    main()
