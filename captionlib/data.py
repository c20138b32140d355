"""Data pipeline.

Chapter 01 of the book, notebooks/01_data_pipeline.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import os
import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from captionlib.io.files import (
    InputError,
    atomic_group,
    new_hdf5,
    read_json,
    require_free_space,
    write_json,
    write_json_rows,
)
from captionlib.io.images import (
    IMAGE_SIZE,
    decoding_pool,
    try_images,
    usable_cores,
)
from captionlib.io.images import (
    read_image as read_image,
)  # for those who look for it here
from captionlib.io.karpathy import Record, read_karpathy

__all__ = [
    "BATCH",
    "CaptionDataset",
    "DataConfig",
    "END",
    "ImageDataset",
    "MOST",
    "PAD",
    "Prepared",
    "START",
    "UNK",
    "Vocabulary",
    "choose_captions",
    "decode_in_order",
    "find_base",
    "image_file",
    "load_references",
    "prepare",
    "write_captions",
    "write_images",
]


PAD, UNK, START, END = "<pad>", "<unk>", "<start>", "<end>"


class Vocabulary:
    """The word map, read both ways.

    Args:
        word_map: token to id: `<pad>` is 0, the other ids follow without a gap.

    Raises:
        InputError: if an id is missing or given twice, or a special token is not there.
    """

    def __init__(self, word_map: dict[str, int]):
        if (
            sorted(word_map.values()) != list(range(len(word_map)))
            or word_map.get(PAD) != 0
        ):
            raise InputError(
                "the word map's ids must be 0 (<pad>), 1, 2, ...; prepare again"
            )
        if not {UNK, START, END} <= word_map.keys():
            raise InputError(
                "the word map lacks a special token; prepare again"
            )
        self.word_map = word_map
        self.words = sorted(word_map, key=word_map.get)  # id to token
        self.pad, self.unk = word_map[PAD], word_map[UNK]
        self.start, self.end = word_map[START], word_map[END]

    def __len__(self) -> int:
        return len(self.word_map)

    @classmethod
    def build(
        cls, captions: Iterable[Sequence[str]], min_word_freq: int
    ) -> "Vocabulary":
        """Give an id to each word that occurs at least `min_word_freq` times, frequent ones first.

        Equally frequent words stand in alphabetical order, so the same captions, in any order,
        always give the same map.
        """
        counts = Counter(token for caption in captions for token in caption)
        kept = {
            word for word, count in counts.items() if count >= min_word_freq
        }
        words = sorted(
            kept - {PAD, UNK, START, END},
            key=lambda word: (-counts[word], word),
        )
        return cls(
            {word: id for id, word in enumerate([PAD, *words, UNK, START, END])}
        )

    def encode(self, tokens: Sequence[str], max_len: int) -> list[int]:
        """`<start>`, at most `max_len` words, `<end>`, then `<pad>` up to max_len + 2 ids."""
        special = (
            self.pad,
            self.start,
            self.end,
        )  # no word, even where a caption spells it out
        ids = [self.word_map.get(token, self.unk) for token in tokens[:max_len]]
        ids = [self.unk if id in special else id for id in ids]
        return [self.start, *ids, self.end] + [self.pad] * (max_len - len(ids))

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words behind `ids`, without `<start>`, `<end>` and `<pad>`."""
        return [
            self.words[i]
            for i in map(int, ids)
            if i not in (self.start, self.end, self.pad)
        ]

    def save(self, path: str | Path) -> None:
        """Write the word map as JSON, whole or not at all."""
        write_json(path, self.word_map)

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a word map that `save`, or the original tutorial, wrote."""
        word_map = read_json(path)
        try:
            return cls(word_map)
        except (InputError, AttributeError, TypeError):
            raise InputError(
                f"{path}: is no word map; prepare the data again"
            ) from None


def choose_captions(captions: list, n: int, rng: random.Random) -> list:
    """Exactly `n` of an image's captions: all of them and some again, or a draw without repeats."""
    if len(captions) > n:
        return rng.sample(captions, n)
    return captions + rng.choices(captions, k=n - len(captions))


@dataclass(frozen=True)
class DataConfig:
    """How captions become numbers."""

    captions_per_image: int = (
        5  # an image with more has them drawn from, one with less repeated
    )
    min_word_freq: int = (
        5  # rarer words, counted in train and restval, become <unk>
    )
    max_len: int = 50  # words; longer training captions are left out
    seed: int = 0  # of the draw

    def __post_init__(self):
        for name in ("captions_per_image", "min_word_freq", "max_len"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )


BATCH = 16  # images a process gets at a time: asking costs time, too
MOST = 2  # batches for each process, under way or waiting


def decode_in_order(
    paths: Sequence[Path], workers: int
) -> Iterator[np.ndarray | InputError]:
    """`read_image` of each path, in order, by several processes.

    However many paths there are, at most `MOST` batches a process are in memory.

    Yields:
        (3, 256, 256) uint8, or the `InputError` that says what is wrong with this image.
    """
    batches = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
    workers = min(
        workers, len(batches) // 4
    )  # a process must be worth its start
    if workers < 2:
        for batch in batches:
            yield from try_images(batch)
        return
    with decoding_pool(workers, MOST * workers, BATCH) as submit:
        waiting = deque()
        for batch in batches:
            if len(waiting) == MOST * workers:
                yield from waiting.popleft().result()
            waiting.append(submit(batch))
        while waiting:
            yield from waiting.popleft().result()


def write_images(
    path: Path,
    records: list[Record],
    decoded: Iterator[np.ndarray | InputError],
    captions_per_image: int,
    *,
    skipped: list[str] | None = None,
    progress: bool = False,
) -> list[Record]:
    """Write the records' images, next to come from `decoded`, to an HDF5 file of their own.

    Returns:
        The records whose image is in the file, in its order.

    Raises:
        InputError: at the first bad image, if `skipped` is None; else its line is added there.
    """
    one, kept = (3, IMAGE_SIZE, IMAGE_SIZE), []
    with new_hdf5(path) as file:
        file.attrs["captions_per_image"] = captions_per_image
        images = file.create_dataset(
            "images",
            (len(records), *one),
            np.uint8,
            chunks=(
                1,
                *one,
            ),  # so that one image is one read, and the end can be cut off
            maxshape=(None, *one),
            track_times=False,  # the same images, the same bytes
        )
        for record in tqdm(
            records, path.name, disable=None if progress else True
        ):
            image = next(decoded)
            if not isinstance(image, InputError):
                images.id.write_direct_chunk(
                    (len(kept), 0, 0, 0), image
                )  # spares HDF5's copies
                kept.append(record)
            elif skipped is None:
                raise image
            else:
                skipped.append(str(image))
        images.resize(len(kept), axis=0)
    return kept


def write_captions(
    folder: Path,
    split: str,
    base: str,
    records: list[Record],
    vocabulary: Vocabulary,
    config: DataConfig,
) -> None:
    """Write a split's encoded captions and their lengths, n for each record."""
    rng = random.Random(
        f"{config.seed} {split}"
    )  # its own: nothing else can disturb the draw
    n, max_len, lengths = config.captions_per_image, config.max_len, []

    def rows() -> Iterator[list[int]]:
        for record in records:
            captions = record.captions
            if split == "TRAIN":
                captions = [
                    tokens for tokens in captions if len(tokens) <= max_len
                ]
            for tokens in choose_captions(captions, n, rng):
                lengths.append(
                    min(len(tokens), max_len) + 2
                )  # <start> and <end> count
                yield vocabulary.encode(tokens, max_len)

    write_json_rows(folder / f"{split}_CAPTIONS_{base}.json", rows())
    write_json(folder / f"{split}_CAPLENS_{base}.json", lengths)


class Prepared(NamedTuple):
    """What `prepare` has done."""

    base: str  # ends the name of every file: {dataset}_{n}_cap_per_img_{m}_min_word_freq
    skipped: list[
        str
    ]  # a line for each image or caption that was left out, and why


def prepare(
    karpathy_json: str | Path,
    images: str | Path,
    to: str | Path,
    config: DataConfig | None = None,
    *,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Prepared:
    """Turn a data set in Karpathy's format into the files that training reads.

    All of them appear at the end, or none does; the same input gives the same bytes again.

    Args:
        karpathy_json: captions and splits of Flickr8k, Flickr30k, COCO, or anything shaped alike.
        images: the folder that its file names start from.
        to: the folder to write to; what else it holds stays untouched.
        config: captions for each image, rare words, longest caption, seed.
        skip_bad: leave out bad images and captions, instead of stopping at the first.
        workers: processes that decode images; one for each core if None.
        progress: show a bar on stderr, if that is a terminal.

    Raises:
        InputError: if an input is bad or the disk too full; nothing has been written then.
    """
    config, to, skipped = config or DataConfig(), Path(to), []
    bad = (
        skipped if skip_bad else None
    )  # where a line about bad input goes; None: it is raised
    records = read_karpathy(karpathy_json, images, skipped=bad)
    n, max_len = config.captions_per_image, config.max_len
    base = f"{records[0].dataset}_{n}_cap_per_img_{config.min_word_freq}_min_word_freq"
    splits = {
        name: [r for r in records if r.split == name]
        for name in ("TRAIN", "VAL", "TEST")
    }

    too_long = [
        r for r in splits["TRAIN"] if min(map(len, r.captions)) > max_len
    ]
    splits["TRAIN"] = [
        r for r in splits["TRAIN"] if min(map(len, r.captions)) <= max_len
    ]
    skipped += [
        f"{r.path}: no caption of {max_len} words or fewer to train on"
        for r in too_long
    ]

    one = (
        3 * IMAGE_SIZE**2 + n * 7 * (max_len + 2) + 1000
    )  # pixels, ids, references
    require_free_space(to, len(records) * one + 2**24)
    paths = [r.path for found in splits.values() for r in found]
    decoder = decode_in_order(paths, workers or usable_cores())
    with (
        atomic_group(to, seal=f"WORDMAP_{base}.json") as folder,
        closing(decoder) as decoded,
    ):
        for split, found in splits.items():
            file = folder / f"{split}_IMAGES_{base}.hdf5"
            splits[split] = write_images(
                file, found, decoded, n, skipped=bad, progress=progress
            )
        if not splits["TRAIN"]:
            raise InputError(
                f"{karpathy_json}: leaves no image to train on; check its splits"
            )
        counted = (
            tokens for r in splits["TRAIN"] + too_long for tokens in r.captions
        )
        vocabulary = Vocabulary.build(counted, config.min_word_freq)
        for split, kept in splits.items():
            write_captions(folder, split, base, kept, vocabulary, config)
        references = {
            split: [
                {"image": r.filename, "captions": r.captions}
                for r in splits[split]
            ]
            for split in ("VAL", "TEST")
        }
        write_json(folder / f"REFERENCES_{base}.json", references)
        vocabulary.save(folder / f"WORDMAP_{base}.json")
    return Prepared(base, skipped)


def find_base(folder: str | Path) -> str:
    """The name that ends every file in a prepared folder; `InputError` if none or several do."""
    names = sorted(path.name for path in Path(folder).glob("WORDMAP_*.json"))
    if not names:
        raise InputError(
            f"{folder}: holds no prepared data (no WORDMAP file); prepare it first"
        )
    if len(names) > 1:
        raise InputError(
            f"{folder}: holds {' and '.join(names)}; give each its own folder"
        )
    return names[0].removeprefix("WORDMAP_").removesuffix(".json")


def image_file(folder: str | Path, split: str) -> Path:
    """The HDF5 file of a split's images; `split` is TRAIN, VAL or TEST, in any case."""
    path = Path(folder) / f"{split.upper()}_IMAGES_{find_base(folder)}.hdf5"
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; the splits are TRAIN, VAL and TEST"
        )
    return path


def load_references(
    folder: str | Path, split: str
) -> tuple[list[str], list[list[list[str]]]]:
    """A VAL or TEST split's image names and, for each, all its captions as people wrote them."""
    path = Path(folder) / f"REFERENCES_{find_base(folder)}.json"
    references = read_json(path)
    if split.upper() not in references:
        raise InputError(
            f"{path}: has no {split}; references are kept for VAL and TEST"
        )
    images = references[split.upper()]
    return [image["image"] for image in images], [
        image["captions"] for image in images
    ]


class ImageDataset(Dataset):
    """A split's images, each once: item i is (3, 256, 256) uint8.

    The file is opened by the process that first reads from it, so a `DataLoader` may use any
    number of workers, forked or spawned.

    Args:
        path: the HDF5 file, as `image_file` gives it.

    Raises:
        InputError: if it is not one of ours.
    """

    def __init__(self, path: str | Path):
        self.path, self._images, self._process = Path(path), None, None
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                self.captions_per_image = int(file.attrs["captions_per_image"])
                shape, dtype = file["images"].shape, file["images"].dtype
        except (OSError, KeyError):
            raise InputError(
                f"{path}: holds no prepared images; prepare the data again"
            ) from None
        if shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE) or dtype != np.uint8:
            raise InputError(
                f"{path}: holds {dtype} {shape}; prepare the data again"
            )
        self._length = shape[0]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i: int) -> Tensor:
        if not 0 <= i < len(self):
            raise IndexError(i)
        if self._process != os.getpid():
            self._images, self._process = (
                None,
                os.getpid(),
            )  # let go of a parent's file first
            self._images = h5py.File(self.path, "r", locking=False)["images"]
        return torch.from_numpy(self._images[i])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_images": None, "_process": None}


class CaptionDataset(Dataset):
    """Item i is a caption with its image: images on disk, captions in memory.

    Args:
        folder: what `prepare`, or the original tutorial, wrote.
        split: TRAIN, VAL or TEST, in any case.

    Item:
        image (3, 256, 256) uint8 in [0, 255]: normalising belongs to the encoder;
        caption (max_len + 2,) int64; length () int64, counting `<start>` and `<end>`.

    Raises:
        InputError: if a file is missing, or the files do not belong together.
    """

    def __init__(self, folder: str | Path, split: str):
        folder, base = Path(folder), find_base(folder)
        self.images = ImageDataset(image_file(folder, split))  # each image once
        self.captions_per_image = self.images.captions_per_image
        self.vocabulary = Vocabulary.load(folder / f"WORDMAP_{base}.json")
        captions = read_json(folder / f"{split.upper()}_CAPTIONS_{base}.json")
        lengths = read_json(folder / f"{split.upper()}_CAPLENS_{base}.json")
        if (
            not len(captions)
            == len(lengths)
            == len(self.images) * self.captions_per_image
        ):
            raise InputError(
                f"{folder}: the {split} files disagree; prepare the data again"
            )
        width = len(captions[0]) if captions else 0
        self.captions = torch.tensor(captions, dtype=torch.int64).reshape(
            len(captions), width
        )
        self.lengths = torch.tensor(lengths, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        caption, length = self.captions[i], self.lengths[i]
        return self.images[i // self.captions_per_image], caption, length
