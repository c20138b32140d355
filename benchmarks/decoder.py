"""One training step of the decoder at the original's sizes, with optimizer.

Chapter 04's plain loop is compared with the exported decoder, each with Adam as
the chapter or as training calls it, in float32 and under bfloat16 autocast, and
with the time of the exported decoder's matrix products alone. Then comes the
step as in training: the five captions of an image share its grid, which the
plain loop needs five times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks import Row, from_chapter, median_seconds
from captionlib.decoder import DecoderWithAttention

B, P, D, A, E, H, V = 32, 14 * 14, 2048, 512, 512, 512, 9490
EACH = 5  # captions of an image


def make_batch(captions: int) -> tuple[Tensor, Tensor]:
    """Captions (captions, 52) of 7 to 18 words, and their lengths."""
    return torch.randint(V, (captions, 52)), torch.randint(9, 21, (captions,))


def products(lengths: Tensor) -> list[tuple[Tensor, Tensor, int]]:
    """The matrix products of a step: operands, and how often each runs.

    3 means forward and both gradients."""
    steps = [
        int((lengths - 1 > t).sum()) for t in range(int(lengths.max()) - 1)
    ]
    tokens = sum(steps)
    # The projection of the images, which need no gradient themselves.
    shapes = [
        ((B * P, D), (D, A), 2),
        ((tokens, H), (H, V), 3),
        ((B, D), (D, 2 * H), 2),
    ]
    for n in steps:
        shapes += [((n, E + D), (E + D, 4 * H), 3), ((n, H), (H, 4 * H), 3)]
        shapes += [((n, H), (H, D), 3), ((n, H), (H, A), 3)]
    return [
        (torch.randn(left), torch.randn(right), times)
        for left, right, times in shapes
    ]


def naive_step(
    model: nn.Module, encoder_out: Tensor, captions: Tensor, lengths: Tensor
):
    """A function that trains the chapter's plain decoder on one batch."""
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        logits, sorted_captions, steps, alphas, _ = model(
            encoder_out, captions, lengths
        )
        predicted = pack_padded_sequence(logits, steps, batch_first=True).data
        targets = pack_padded_sequence(
            sorted_captions[:, 1:], steps, batch_first=True
        ).data
        loss = (
            F.cross_entropy(predicted, targets)
            + (1 - alphas.sum(1)).square().mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def exported_step(
    model: nn.Module,
    encoder_out: Tensor,
    captions: Tensor,
    lengths: Tensor,
    bf16: bool = False,
):
    """A function that trains the exported decoder on one batch.

    Grids may be float16."""
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            grid = encoder_out.bfloat16() if bf16 else encoder_out.float()
            out = model(grid, captions, lengths)
        loss = F.cross_entropy(out.logits.data.float(), out.targets.data)
        loss = loss + (1 - out.alphas.sum(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> list[Row]:
    """Time all, print the times, and return the rows of the table."""
    torch.manual_seed(0)
    encoder_out, batch = torch.randn(B, P, D), make_batch(B)
    images, five = torch.randn(B // EACH, P, D), make_batch(B // EACH * EACH)
    naive = from_chapter("04_decoder", "class NaiveDecoder")["NaiveDecoder"](
        A, E, H, V, D
    )
    ours = DecoderWithAttention(A, E, H, V, D)
    ours.load_state_dict(naive.state_dict())
    operands = products(batch[1])

    def products_alone():
        for left, right, times in operands:
            for _ in range(times):
                left @ right

    seconds = median_seconds(
        {
            "naive": naive_step(naive, encoder_out, *batch),
            "exported": exported_step(ours, encoder_out, *batch),
            "bf16": exported_step(ours, encoder_out, *batch, bf16=True),
            "products": products_alone,
            "together": exported_step(ours, images, *five),
        }
    )
    seconds["together"] *= B / len(five[0])  # it has two captions fewer
    print(
        f"decoder training step, batch {B}, {P}x{D} grid, sizes {A}, "
        f"vocabulary {V}"
    )
    for name, value in seconds.items():
        print(
            f"  {name:<10} {1000 * value:7.0f} ms, "
            f"{seconds['naive'] / value:4.1f} times as fast"
        )
    return [
        Row(
            "a training step of the decoder",
            seconds["naive"] / seconds["exported"],
            "×",
            3.5,
        ),
        Row(
            "the same, against its matrix products alone",
            seconds["exported"] / seconds["products"],
            "×",
            2.5,
            at_least=False,
        ),
    ]


if __name__ == "__main__":
    main()
