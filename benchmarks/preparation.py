"""Preparing photographs of 640x480: the engine's `prepare` and chapter 01's.

The engine uses two processes; the chapter's plain form writes the same files in
one. The photographs are crops of the packaged one, under many names. Then the
engine's peak memory, over all its processes, is measured with ten times as many
images.
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import (
    FLAT,
    Row,
    highest_megabytes,
    in_fresh_process,
    median_seconds,
)
from captionlib import data
from captionlib.engine.preparation import prepare
from captionlib.io.files import ASSETS, write_json

IMAGES, DIFFERENT, PROCESSES = 2000, 40, 2
FEW, MANY = 160, 1600
WORDS = "a dog runs on the green grass near two red cats while an old man throws its ball".split()


def make_photographs(folder: Path) -> list[Path]:
    """`IMAGES` JPEG files of 640x480: `DIFFERENT` ones, under several names
    each."""
    folder.mkdir()
    with Image.open(ASSETS / "photograph.jpg") as image:
        photograph = image.convert("RGB").resize((960, 720))
    rng, paths = np.random.default_rng(0), []
    for i in range(IMAGES):
        paths.append(folder / f"{i:05d}.jpg")
        if i < DIFFERENT:
            left, top = rng.integers(0, 320), rng.integers(0, 240)
            photograph.crop((left, top, left + 640, top + 480)).save(
                paths[-1], quality=90
            )
        else:
            paths[-1].hardlink_to(paths[i % DIFFERENT])
    return paths


def make_json(path: Path, photographs: list[Path], train: int) -> Path:
    """Karpathy's format, five captions each; half the other images are for
    validation."""
    rng = np.random.default_rng(0)
    images = [
        {
            "filename": photograph.name,
            "split": "train" if i < train else ("val", "test")[i % 2],
            "sentences": [
                {"tokens": rng.choice(WORDS, 11).tolist()} for _ in range(5)
            ],
        }
        for i, photograph in enumerate(photographs)
    ]
    write_json(path, {"dataset": "photographs", "images": images})
    return path


def peak(json: Path, images: Path, to: Path) -> float:
    """Megabytes of this new process and of those that it starts."""
    prepare(json, images, to, workers=PROCESSES, progress=False)
    # Of the largest child.
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    return highest_megabytes() + PROCESSES * child


def main() -> list[Row]:
    """Time both, measure memory, print all, and return the rows of the
    table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = make_photographs(folder / "images")
        json = make_json(folder / "all.json", paths, train=IMAGES * 3 // 4)

        def ours():
            prepare(
                json,
                folder / "images",
                folder / "data",
                workers=PROCESSES,
                progress=False,
            )

        seconds = median_seconds(
            {
                "plain": lambda: data.prepare(
                    json, folder / "images", folder / "plain"
                ),
                "engine": ours,
            },
            rounds=3,
        )
        memory = [
            in_fresh_process(
                peak,
                make_json(
                    folder / f"{count}.json",
                    paths[:count],
                    train=count * 3 // 4,
                ),
                folder / "images",
                folder / f"data{count}",
            )
            for count in (FEW, MANY)
        ]
    ratio = seconds["plain"] / seconds["engine"]
    print(f"preparing {IMAGES:,} JPEG files of 640x480")
    print(f"  chapter 01's prepare {seconds['plain']:5.2f} s")
    print(
        f"  the engine's         {seconds['engine']:5.2f} s, {PROCESSES} "
        f"processes: {ratio:.2f} times as fast"
    )
    print(
        f"  at most {memory[0]:.0f} MB for {FEW} images, {memory[1]:.0f} MB "
        f"for {MANY:,}"
    )
    return [
        Row("preparing photographs, in two processes", ratio, "×", 1.7),
        Row(
            "memory of preparing ten times as many",
            memory[1] / memory[0],
            "×",
            FLAT,
            False,
        ),
    ]


if __name__ == "__main__":
    main()
