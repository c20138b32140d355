"""Peak memory of `train_recipe` with ten times as many images.

The same run (encoding, an epoch, validation) takes place in new processes, on
160 and on 1,600 training images. If memory held the images, the second run
would take 300 MB more; if it held their grids, 60 MB.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import FLAT, Row, highest_megabytes, in_fresh_process
from benchmarks.preparation import make_json
from captionlib.config import DataConfig
from captionlib.engine import train_recipe
from captionlib.engine.preparation import prepare

FEW, MANY, OTHERS = 160, 1600, 40
SMALL = {"attention_dim": 64, "embed_dim": 64, "decoder_dim": 64}


def make_images(folder: Path) -> list[Path]:
    """Images of noise, small enough to be read fast."""
    folder.mkdir()
    rng, paths = np.random.default_rng(0), []
    for i in range(MANY + OTHERS):
        paths.append(folder / f"{i:05d}.png")
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(
            paths[-1]
        )
    return paths


def peak(data: Path, to: Path) -> float:
    """Megabytes that this new process takes to train for an epoch."""
    train_recipe(
        data=str(data),
        to=to,
        image_size=128,
        **SMALL,
        epochs=1,
        batch_size=16,
        say=lambda line: None,
    )
    return highest_megabytes()


def main() -> list[Row]:
    """Measure both, print them, and return the rows of the table."""
    memory = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = make_images(folder / "images")
        for count in (FEW, MANY):
            json = make_json(
                folder / f"{count}.json", paths[: count + OTHERS], train=count
            )
            data = folder / f"data{count}"
            prepare(
                json,
                folder / "images",
                data,
                DataConfig(min_word_freq=1),
                progress=False,
            )
            memory.append(
                in_fresh_process(peak, data, folder / f"model{count}")
            )
    print(
        f"training for an epoch takes {memory[0]:.0f} MB at most on {FEW} "
        "images,"
    )
    print(f"  {memory[1]:.0f} MB on {MANY:,}")
    return [
        Row(
            "memory of training on ten times as many",
            memory[1] / memory[0],
            "×",
            FLAT,
            False,
        )
    ]


if __name__ == "__main__":
    main()
