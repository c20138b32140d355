"""Image folders and Karpathy JSON files in the shape of the real ones, small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = "a dog runs on the green grass near two red cats while an old man throws its ball".split()


def paint(path: Path, seed: int, size: tuple[int, int] = (48, 36)) -> Path:
    """A picture that no other seed gives, saved in the format that the name asks for."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def say(seed: int, length: int = 7) -> list[str]:
    """A caption of `length` tokens."""
    return np.random.default_rng(seed).choice(WORDS, length).tolist()


def entry(filename: str, split: str, captions: list[list[str]], **more) -> dict:
    """One image as Karpathy's JSON has it."""
    sentences = [
        {
            "tokens": tokens,
            "raw": " ".join(map(str, tokens)),
            "imgid": 0,
            "sentid": n,
        }
        for n, tokens in enumerate(captions)
    ]
    ids = list(range(len(captions)))
    return {
        "sentids": ids,
        "imgid": 0,
        "sentences": sentences,
        "split": split,
    } | {
        "filename": filename,
        **more,
    }


def write_json_file(path: Path, dataset: str, entries: list[dict]) -> Path:
    path.write_text(json.dumps({"images": entries, "dataset": dataset}))
    return path


def flickr_tree(
    folder: Path, train: int = 4, val: int = 2, test: int = 2, captions: int = 5
) -> tuple[Path, Path]:
    """A tree like Flickr8k's: its JSON and its one flat folder of JPEGs."""
    entries = []
    for split, count in (("train", train), ("val", val), ("test", test)):
        for i in range(count):
            number = len(entries)
            name = f"{1000268201 + number}_{split}{i}.jpg"
            paint(folder / "Flicker8k_Dataset" / name, number)
            spoken = [say(100 * number + n) for n in range(captions)]
            entries.append(entry(name, split, spoken))
    return write_json_file(
        folder / "dataset_flickr8k.json", "flickr8k", entries
    ), folder / ("Flicker8k_Dataset")


def coco_tree(folder: Path, copies: int = 1) -> tuple[Path, Path]:
    """A tree like COCO's: two folders, `filepath`, and a split called restval."""
    places = copies * [
        ("train2014", "train", "zebra"),
        ("val2014", "restval", "giraffe"),
        ("val2014", "val", "otter"),
        ("train2014", "train", "zebra"),
        ("val2014", "test", "walrus"),
    ]
    entries = []
    for number, (filepath, split, animal) in enumerate(places):
        name = f"COCO_{filepath}_{number:012d}.jpg"
        paint(folder / "images" / filepath / name, number)
        spoken = [["a", animal, "stands", "there"] for _ in range(6)]
        entries.append(
            entry(name, split, spoken, filepath=filepath, cocoid=number)
        )
    return write_json_file(
        folder / "dataset_coco.json", "coco", entries
    ), folder / "images"


def long_and_short_tree(folder: Path) -> tuple[Path, Path]:
    """Captions of up to 40 words: one training image has none of 10 words or fewer."""
    paint(folder / "images" / "a.jpg", 0)
    for name in ("b.jpg", "v.jpg", "w.jpg"):
        paint(folder / "images" / name, 1)
    entries = [
        entry("a.jpg", "train", [say(0, 11), say(1, 10), say(2, 40)]),
        entry("b.jpg", "train", [["unheard"] * 11, say(4, 12)]),
        entry("v.jpg", "val", [say(5, 30)]),
        entry("w.jpg", "val", [say(6, 11), say(7, 5)]),
    ]
    return write_json_file(
        folder / "d.json", "mini", entries
    ), folder / "images"


def contents(folder: str | Path) -> dict[str, bytes]:
    """Name and bytes of each file in a folder."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
