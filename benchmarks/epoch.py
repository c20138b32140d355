"""One epoch over frozen features, and its validation, at the original's sizes.

The naive epoch encodes the image of every caption, as in chapter 02, and trains
chapter 04's plain decoder. The other reads each image's grid from the cache and
trains the exported decoder on all its captions together. An epoch has 6,000
images; then 1,000 are captioned greedily from cached grids, as in Flickr8k. One
training step and one batch of captions are measured, and multiplied by their
number. ResNet-101 has random weights, which take as long as trained ones. The
files are in the operating system's cache, as in the second epoch of a training
whose features fit into memory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks import Row, from_chapter, median_seconds, search
from benchmarks.decoder import (
    EACH,
    A,
    D,
    E,
    H,
    P,
    V,
    exported_step,
    make_batch,
    naive_step,
)
from captionlib.beam_search import beam_search
from captionlib.config import SearchConfig
from captionlib.decoder import DecoderWithAttention
from captionlib.encoder import Encoder
from captionlib.io.features import Features, new_features

BACKBONE = "resnet101"
IMAGES, VALIDATION = 6000, 1000  # of an epoch
# Captions of one naive batch, images of one batch of ours.
NAIVE, BATCH = (32, 16)


def main() -> list[Row]:
    """Time the parts of both epochs, print them, and return the rows of the
    table."""
    torch.manual_seed(0)
    encoder = Encoder(BACKBONE, pretrained=False)
    chapter = from_chapter("02_encoder", "def naive_epoch")
    image = torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8)
    chapter |= {"encoder": encoder, "captions": [(image,)] * NAIVE}
    naive = from_chapter("04_decoder", "class NaiveDecoder")["NaiveDecoder"](
        A, E, H, V, D
    )
    ours = DecoderWithAttention(A, E, H, V, D)
    decoder, encoder_out, vocabulary = search.make_case("the original's sizes")
    greedy = SearchConfig(beam_size=1)

    @torch.inference_mode()
    def validate():
        beam_search(decoder, encoder_out.float(), vocabulary, greedy)

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "features.hdf5"
        with new_features(path, (BATCH, 14, 14, D), {}) as vectors:
            vectors[:] = torch.randn(BATCH, P, D).half().numpy()
        features = Features(path)
        grids, batch = torch.from_numpy(features[:]), make_batch(BATCH * EACH)
        seconds = median_seconds(
            {
                "encode": chapter["naive_epoch"],
                "plain": naive_step(
                    naive, torch.randn(NAIVE, P, D), *make_batch(NAIVE)
                ),
                "load": lambda: torch.stack(
                    [torch.from_numpy(features[i]) for i in range(BATCH)]
                ),
                "train": exported_step(ours, grids, *batch),
                "bf16": exported_step(ours, grids, *batch, bf16=True),
                "validate": validate,
            },
            rounds=3,
        )
    for name in ("encode", "plain"):
        seconds[name] *= EACH * IMAGES / NAIVE
    for name in ("load", "train", "bf16"):
        seconds[name] *= IMAGES / BATCH
    seconds["validate"] *= VALIDATION / len(encoder_out)
    slow = seconds["encode"] + seconds["plain"]
    cached = seconds["load"] + seconds["train"]
    print(
        f"one epoch of {IMAGES:,} images with {EACH} captions, {BACKBONE}, "
        f"{P}x{D}, scaled up"
    )
    print(f"  naive    {slow:7.0f} s, {seconds['encode']:.0f} of them encoding")
    print(f"  cached   {cached:7.0f} s, {seconds['load']:.1f} of them loading")
    half = seconds["load"] + seconds["bf16"]
    print(
        f"  cached   {half:7.0f} s in bfloat16: {slow / half:.1f} times as "
        "fast as naive"
    )
    print(
        f"  validate {seconds['validate']:7.1f} s, {VALIDATION:,} images, "
        "greedy"
    )
    return [
        Row("an epoch over frozen features", slow / cached, "×", 20),
        Row("the same, in bfloat16", slow / half, "×", 20),
        Row(
            "validation of 1,000 images",
            100 * seconds["validate"] / cached,
            "%",
            10,
            False,
        ),
    ]


if __name__ == "__main__":
    main()
