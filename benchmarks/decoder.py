"""One training step of the decoder at the original tutorial's sizes, optimizer included.

The plain loop of chapter 04 against the exported decoder, in float32 and under bfloat16 autocast,
and against the time that the exported decoder's matrix products alone take.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks import best_seconds, from_chapter
from captionlib.decoder import DecoderWithAttention

B, P, D, A, E, H, V = 32, 14 * 14, 2048, 512, 512, 512, 9490


def products(lengths: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    """The matrix products of a step: operands, and how often each runs (3 = both gradients too)."""
    steps = [int((lengths - 1 > t).sum()) for t in range(int(lengths.max()) - 1)]
    tokens = sum(steps)
    shapes = [
        ((B * P, D), (D, A), 2),  # the images' projection; they need no gradient themselves
        ((tokens, H), (H, V), 3),
        ((B, D), (D, 2 * H), 2),
    ]
    for n in steps:
        shapes += [((n, E + D), (E + D, 4 * H), 3), ((n, H), (H, 4 * H), 3)]
        shapes += [((n, H), (H, D), 3), ((n, H), (H, A), 3)]
    return [(torch.randn(left), torch.randn(right), times) for left, right, times in shapes]


def main() -> dict[str, float]:
    """Time all four, print them, and return the ratios."""
    torch.manual_seed(0)
    encoder_out = torch.randn(B, P, D)
    lengths = torch.randint(9, 21, (B,))
    captions = torch.randint(V, (B, 52))
    naive = from_chapter("04_decoder", "class NaiveDecoder")["NaiveDecoder"](A, E, H, V, D)
    ours = DecoderWithAttention(A, E, H, V, D)
    ours.load_state_dict(naive.state_dict())

    def naive_loss():
        logits, sorted_captions, steps, alphas, _ = naive(encoder_out, captions, lengths)
        predicted = pack_padded_sequence(logits, steps, batch_first=True).data
        targets = pack_padded_sequence(sorted_captions[:, 1:], steps, batch_first=True).data
        return F.cross_entropy(predicted, targets) + (1 - alphas.sum(1)).square().mean()

    def our_loss(bf16=False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            out = ours(encoder_out, captions, lengths)
        words = F.cross_entropy(out.logits.data.float(), out.targets.data)
        return words + (1 - out.alphas.sum(1)).square().mean()

    def training_step(model: nn.Module, loss):
        optimizer = torch.optim.Adam(model.parameters(), fused=True)

        def step():
            value = loss()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

        return step

    operands = products(lengths)

    def products_alone():
        for left, right, times in operands:
            for _ in range(times):
                left @ right

    seconds = best_seconds(
        {
            "naive": training_step(naive, naive_loss),
            "exported": training_step(ours, our_loss),
            "bf16": training_step(ours, lambda: our_loss(bf16=True)),
            "products": products_alone,
        }
    )
    ratios = {
        "exported_vs_naive": seconds["naive"] / seconds["exported"],
        "bf16_vs_naive": seconds["naive"] / seconds["bf16"],
        "exported_vs_products": seconds["exported"] / seconds["products"],
    }
    print(f"decoder training step, batch {B}, {P}x{D} grid, sizes {A}, vocabulary {V}")
    for name in ("naive", "exported", "bf16", "products"):
        print(f"  {name:<10} {1000 * seconds[name]:7.0f} ms")
    print(f"  exported is {ratios['exported_vs_naive']:.1f} times as fast as the plain loop")
    print(f"  with bf16   {ratios['bf16_vs_naive']:.1f} times")
    print(f"  exported takes {ratios['exported_vs_products']:.1f} times its matrix products alone")
    return ratios


if __name__ == "__main__":
    main()
