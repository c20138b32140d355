"""Data pipeline.

Chapter 01 of the book, notebooks/01_data_pipeline.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from captionlib.config import DataConfig
from captionlib.io.files import (
    InputError,
    read_json,
    write_json,
    write_json_rows,
)
from captionlib.io.images import IMAGE_SIZE, read_image
from captionlib.io.karpathy import Record, read_karpathy
from captionlib.io.prepared import (
    END,
    PAD,
    START,
    UNK,
    check_word_map,
    count_images,
    find_base,
    image_file,
)

__all__ = [
    "CaptionDataset",
    "ImageDataset",
    "Vocabulary",
    "choose_captions",
    "encode_captions",
    "load_references",
    "name_files",
    "prepare",
    "references_of",
    "usable_captions",
    "write_images",
]


class Vocabulary:
    """The word map, read both ways.

    `word_map` has a word's id, `words` an id's word.

    Raises:
        InputError: if an id or a special token is missing.
    """

    def __init__(self, word_map: dict[str, int]):
        self.word_map = check_word_map(word_map)  # else an InputError
        self.words = sorted(word_map, key=word_map.get)
        self.pad, self.unk = word_map[PAD], word_map[UNK]
        self.start, self.end = word_map[START], word_map[END]

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], min_word_freq: int):
        """Number the words that occur at least `min_word_freq` times."""
        counts = Counter(word for tokens in captions for word in tokens)
        kept = {word for word, n in counts.items() if n >= min_word_freq}
        kept -= {PAD, UNK, START, END}  # spelled out in some caption
        by_count = sorted(kept, key=lambda word: (-counts[word], word))
        words = [PAD, *by_count, UNK, START, END]
        return cls({word: i for i, word in enumerate(words)})

    def encode(self, tokens: Sequence[str], max_len: int) -> list[int]:
        """`<start>`, up to `max_len` words, `<end>`; `<pad>` to max_len + 2."""
        ids = [self.word_map.get(word, self.unk) for word in tokens[:max_len]]
        special = self.pad, self.start, self.end
        ids = [self.unk if i in special else i for i in ids]
        return [self.start, *ids, self.end] + [self.pad] * (max_len - len(ids))

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words behind `ids`, without `<start>`, `<end>` and `<pad>`."""
        special = self.pad, self.start, self.end
        return [self.words[i] for i in map(int, ids) if i not in special]

    def save(self, path: str | Path) -> None:
        write_json(path, self.word_map)

    @classmethod
    def load(cls, path: str | Path):
        """Read a word map that `save` or the original tutorial wrote."""
        return cls(check_word_map(read_json(path), path))


def choose_captions(captions: list, n: int, rng: random.Random) -> list:
    """Exactly `n` captions: a draw from more, or all with repeats."""
    if len(captions) > n:
        return rng.sample(captions, n)
    return captions + rng.choices(captions, k=n - len(captions))


def usable_captions(record: Record, max_len: int) -> list:
    """An image's captions; in training, those of at most `max_len` words."""
    if record.split != "TRAIN":
        return record.captions
    return [tokens for tokens in record.captions if len(tokens) <= max_len]


def encode_captions(
    records: list[Record],
    split: str,
    vocabulary: Vocabulary,
    config: DataConfig,
) -> Iterator[tuple[list[int], int]]:
    """For each record n captions: their ids, max_len + 2 each, and length."""
    n, max_len = config.captions_per_image, config.max_len
    rng = random.Random(f"{config.seed} {split}")
    for record in records:
        for tokens in choose_captions(usable_captions(record, max_len), n, rng):
            length = min(len(tokens), max_len) + 2
            yield vocabulary.encode(tokens, max_len), length


def write_images(path: Path, records: list[Record], n: int) -> None:
    """Write the records' images to an HDF5 file, with n as an attribute."""
    shape = len(records), 3, IMAGE_SIZE, IMAGE_SIZE
    with h5py.File(path, "w") as file:
        file.attrs["captions_per_image"] = n
        images = file.create_dataset("images", shape, np.uint8)
        for i, record in enumerate(records):
            images[i] = read_image(record.path)


def name_files(dataset: str, config: DataConfig) -> str:
    """The `base` that ends the name of every file."""
    n, least = config.captions_per_image, config.min_word_freq
    return f"{dataset}_{n}_cap_per_img_{least}_min_word_freq"


def references_of(records: list[Record]) -> list[dict]:
    """Each image's name and all its captions, as people wrote them."""
    return [{"image": r.filename, "captions": r.captions} for r in records]


def prepare(
    karpathy_json: str | Path,
    images: str | Path,
    to: str | Path,
    config: DataConfig | None = None,
) -> str:
    """Turn a data set in Karpathy's format into the files training reads.

    Returns:
        The `base` in their names.

    Raises:
        InputError: at the first bad entry or image.
    """
    config, to = config or DataConfig(), Path(to)
    to.mkdir(parents=True, exist_ok=True)
    records = read_karpathy(karpathy_json, images)
    base = name_files(records[0].dataset, config)
    training = (c for r in records if r.split == "TRAIN" for c in r.captions)
    vocabulary = Vocabulary.build(training, config.min_word_freq)
    references = {}
    for split in ("TRAIN", "VAL", "TEST"):
        found = [
            record
            for record in records
            if record.split == split and usable_captions(record, config.max_len)
        ]
        file = to / f"{split}_IMAGES_{base}.hdf5"
        write_images(file, found, config.captions_per_image)
        pairs = list(encode_captions(found, split, vocabulary, config))
        rows, lengths = [ids for ids, _ in pairs], [n for _, n in pairs]
        write_json_rows(to / f"{split}_CAPTIONS_{base}.json", rows)
        write_json(to / f"{split}_CAPLENS_{base}.json", lengths)
        if split != "TRAIN":
            references[split] = references_of(found)
    write_json(to / f"REFERENCES_{base}.json", references)
    vocabulary.save(to / f"WORDMAP_{base}.json")
    return base


def load_references(
    folder: str | Path, split: str
) -> tuple[list[str], list[list[list[str]]]]:
    """The image names of VAL or TEST and, for each, all its captions."""
    path = Path(folder) / f"REFERENCES_{find_base(folder)}.json"
    images = read_json(path).get(split.upper())
    if images is None:
        raise InputError(
            f"{path}: no references for {split}; only VAL and TEST have them"
        )
    return [i["image"] for i in images], [i["captions"] for i in images]


class ImageDataset(Dataset):
    """The images of one HDF5 file: item i is (3, 256, 256) uint8.

    Raises:
        InputError: if the file holds no such images.
    """

    def __init__(self, path: str | Path):
        self.path, self._images, self._process = Path(path), None, None
        self._length, self.captions_per_image = count_images(path)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i: int) -> Tensor:
        if not 0 <= i < len(self):
            raise IndexError(i)
        if self._process != os.getpid():
            self._images = None  # close what a fork has inherited
            # Several may read at a time, so the file need not be locked.
            self._images = h5py.File(self.path, "r", locking=False)["images"]
            self._process = os.getpid()
        return torch.from_numpy(self._images[i])

    def __getstate__(self) -> dict:  # what is sent to a worker
        return {**self.__dict__, "_images": None, "_process": None}


class CaptionDataset(Dataset):
    """Captions of a prepared folder, each with its image.

    Item i is the image (3, 256, 256) uint8, the caption (max_len + 2,)
    int64 and its length () int64, which counts `<start>` and `<end>`.

    Raises:
        InputError: if a file is missing or doesn't fit the others.
    """

    def __init__(self, folder: str | Path, split: str):
        folder, base = Path(folder), find_base(folder)
        self.images = ImageDataset(image_file(folder, split))
        self.captions_per_image = self.images.captions_per_image
        self.vocabulary = Vocabulary.load(folder / f"WORDMAP_{base}.json")
        captions = read_json(folder / f"{split.upper()}_CAPTIONS_{base}.json")
        lengths = read_json(folder / f"{split.upper()}_CAPLENS_{base}.json")
        expected = len(self.images) * self.captions_per_image
        if not len(captions) == len(lengths) == expected:
            raise InputError(f"{folder}: {split} files disagree; prepare again")
        self.captions = torch.tensor(captions, dtype=torch.int64)
        self.lengths = torch.tensor(lengths, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        image = self.images[i // self.captions_per_image]
        return image, self.captions[i], self.lengths[i]
