# ---
# jupyter:
#   captionlib:
#     module: data
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: captionlib
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Data pipeline

# %%
#| export
from dataclasses import dataclass

from captionlib.files import InputError


@dataclass(frozen=True)
class DataConfig:
    """How captions become numbers."""

    captions_per_image: int = 5  # sampled for each image: fewer are repeated, more are drawn from
    min_word_freq: int = 5  # rarer words, counted in train and restval, become <unk>
    max_len: int = 50  # words; longer training captions are left out
    seed: int = 0  # of the draw

    def __post_init__(self):
        for name in ("captions_per_image", "min_word_freq", "max_len"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


# %%
#| export
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from captionlib.files import read_json, write_json

PAD, UNK, START, END = "<pad>", "<unk>", "<start>", "<end>"


class Vocabulary:
    """The word map, read both ways.

    Args:
        word_map: token to id: `<pad>` is 0, the other ids follow without a gap.

    Raises:
        InputError: if an id is missing or given twice, or one of the four special tokens is.
    """

    def __init__(self, word_map: dict[str, int]):
        self.word_map = word_map
        self.words = sorted(word_map, key=word_map.get)  # id to token
        if [word_map[word] for word in self.words] != list(range(len(word_map))):
            raise InputError("the word map's ids have gaps or repeats; prepare the data again")
        if not {PAD, UNK, START, END} <= word_map.keys() or word_map[PAD] != 0:
            raise InputError("the word map lacks a special token; prepare the data again")
        self.pad, self.unk = word_map[PAD], word_map[UNK]
        self.start, self.end = word_map[START], word_map[END]

    def __len__(self) -> int:
        return len(self.word_map)

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], min_word_freq: int) -> "Vocabulary":
        """Give an id to each word that occurs at least `min_word_freq` times, frequent ones first.

        Equally frequent words stand in alphabetical order, so the same captions, in any order,
        always give the same map.
        """
        counts = Counter(token for caption in captions for token in caption)
        kept = [word for word, count in counts.items() if count >= min_word_freq]
        kept = sorted(set(kept) - {PAD, UNK, START, END}, key=lambda word: (-counts[word], word))
        return cls({word: id for id, word in enumerate([PAD, *kept, UNK, START, END])})

    def encode(self, tokens: Sequence[str], max_len: int) -> list[int]:
        """`<start>`, at most `max_len` words, `<end>`, then `<pad>` up to max_len + 2 ids."""
        ids = [self.word_map.get(token, self.unk) for token in tokens[:max_len]]
        padding = [self.pad] * (max_len - len(ids))
        return [self.start, *ids, self.end, *padding]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words behind `ids`, without `<start>`, `<end>` and `<pad>`."""
        return [self.words[i] for i in map(int, ids) if i not in (self.start, self.end, self.pad)]

    def save(self, path: str | Path) -> None:
        """Write the word map as JSON, whole or not at all."""
        write_json(path, self.word_map)

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a word map that `save`, or the original tutorial, wrote."""
        word_map = read_json(path)
        ids = word_map.values() if isinstance(word_map, dict) else [None]
        if not all(type(id) is int for id in ids):
            raise InputError(f"{path}: is not a word map; name a WORDMAP file")
        try:
            return cls(word_map)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


# %%
#| export
import random


def choose_captions(captions: list, n: int, rng: random.Random) -> list:
    """Exactly `n` of an image's captions: all of them and some again, or a draw without repeats."""
    if len(captions) > n:
        return rng.sample(captions, n)
    return captions + rng.choices(captions, k=n - len(captions))


# %%
#| export
from collections import deque
from collections.abc import Iterator

import numpy as np

from captionlib.images import decoding_pool, try_images
from captionlib.images import read_image as read_image  # part of this module's interface

BATCH = 4  # images a process decodes at a time: enough to hide the sending, few enough to stay in cache


def decode_in_order(paths: Sequence[Path], workers: int) -> Iterator[np.ndarray | InputError]:
    """`read_image` of each path, in order, by several processes.

    However many paths there are, at most four batches a process are under way or waiting: memory
    does not grow with the data set.

    Yields:
        (3, 256, 256) uint8, or the `InputError` that says what is wrong with this image.
    """
    batches = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
    workers = min(workers, len(batches) // 8)  # a process must be worth its start
    if workers < 2:
        for batch in batches:
            yield from try_images(batch)
        return
    with decoding_pool(workers) as submit:
        waiting = deque()
        for batch in batches:
            waiting.append(submit(batch))
            if len(waiting) == 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


# %%
#| export
from tqdm.auto import tqdm

from captionlib.files import new_hdf5
from captionlib.images import IMAGE_SIZE
from captionlib.karpathy import Record


def write_images(
    path: Path,
    records: list[Record],
    captions_per_image: int,
    workers: int,
    skipped: list[str] | None,
    progress: bool = False,
) -> list[Record]:
    """Decode the records' images into an HDF5 file, `images` uint8 (I, 3, 256, 256).

    Returns:
        The records whose image is in the file, in its order.

    Raises:
        InputError: at the first bad image, if `skipped` is None; else its line is added there.
    """
    shape, kept = (len(records), 3, IMAGE_SIZE, IMAGE_SIZE), []
    with new_hdf5(path) as file:
        file.attrs["captions_per_image"] = captions_per_image
        images = file.create_dataset(
            "images", shape, np.uint8, chunks=(1, *shape[1:]), maxshape=(None, *shape[1:]), track_times=False
        )
        decoded = decode_in_order([record.path for record in records], workers)
        bar = tqdm(decoded, path.name, len(records), disable=None if progress else True)
        for record, image in zip(records, bar, strict=True):
            if isinstance(image, InputError):
                if skipped is None:
                    raise image
                skipped.append(str(image))
            else:
                images[len(kept)] = image
                kept.append(record)
        images.resize(len(kept), axis=0)
    return kept


# %%
#| export
from captionlib.files import write_json_rows


def write_captions(
    folder: Path, split: str, base: str, records: list[Record], words: Vocabulary, cfg: DataConfig
) -> None:
    """Write a split's encoded captions and their lengths: caption i belongs to image i // n."""
    rng = random.Random(f"{cfg.seed} {split}")  # its own, so that nothing else can disturb it
    n, longest, lengths = cfg.captions_per_image, cfg.max_len, []

    def rows() -> Iterator[list[int]]:
        for record in records:
            for tokens in choose_captions(record.captions, n, rng):
                lengths.append(min(len(tokens), longest) + 2)  # <start> and <end> count
                yield words.encode(tokens, longest)

    write_json_rows(folder / f"{split}_CAPTIONS_{base}.json", rows())
    write_json(folder / f"{split}_CAPLENS_{base}.json", lengths)


# %%
#| export
from typing import NamedTuple

from captionlib.files import atomic_group, require_free_space
from captionlib.images import usable_cores
from captionlib.karpathy import read_karpathy


class Prepared(NamedTuple):
    """What `prepare` has done."""

    base: str  # ends the name of every file: {dataset}_{n}_cap_per_img_{m}_min_word_freq
    skipped: list[str]  # one line for each image or caption that was left out, and why


def prepare(
    karpathy_json: str | Path,
    images: str | Path,
    to: str | Path,
    config: DataConfig = DataConfig(),  # noqa: B008 (frozen, so it can be shared)
    *,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Prepared:
    """Turn a data set in Karpathy's format into the files that training reads.

    All of them appear at the end or none does; a rerun with the same input writes the same bytes.

    Args:
        karpathy_json: captions and splits of Flickr8k, Flickr30k, COCO or anything shaped alike.
        images: the folder its file names start from.
        to: the folder to write to; what else it holds stays untouched.
        config: captions for each image, rare words, longest caption, seed.
        skip_bad: leave out bad images and captions instead of stopping at the first.
        workers: processes that decode images; as many as there are cores if None.
        progress: show a bar on stderr, if that is a terminal.

    Raises:
        InputError: if an input is bad or the disk too full; nothing has been written then.
    """
    to, skipped = Path(to), []
    bad = skipped if skip_bad else None
    records = read_karpathy(karpathy_json, images, skipped=bad)
    n, longest = config.captions_per_image, config.max_len
    base = f"{records[0].dataset}_{n}_cap_per_img_{config.min_word_freq}_min_word_freq"
    splits = {name: [r for r in records if r.split == name] for name in ("TRAIN", "VAL", "TEST")}

    too_long = [r for r in splits["TRAIN"] if min(map(len, r.captions)) > longest]
    splits["TRAIN"] = [r for r in splits["TRAIN"] if min(map(len, r.captions)) <= longest]
    skipped += [f"{r.path}: left out of TRAIN, no caption has {longest} words or fewer"
                for r in too_long]

    one_image = 3 * IMAGE_SIZE**2 + n * 7 * (longest + 2) + 1000  # pixels, captions, references
    require_free_space(to, len(records) * one_image + 2**24)
    with atomic_group(to, seal=f"WORDMAP_{base}.json") as folder:
        for split in splits:
            path = folder / f"{split}_IMAGES_{base}.hdf5"
            workers = workers or usable_cores()
            splits[split] = write_images(path, splits[split], n, workers, bad, progress)
        if not splits["TRAIN"]:
            raise InputError(f"{karpathy_json}: no usable image for training; check the file")
        counted = (c for r in splits["TRAIN"] + too_long for c in r.captions)
        words = Vocabulary.build(counted, config.min_word_freq)
        for split, kept in splits.items():
            write_captions(folder, split, base, kept, words, config)
        references = {
            split: [{"image": r.filename, "captions": r.captions} for r in splits[split]]
            for split in ("VAL", "TEST")
        }
        write_json(folder / f"REFERENCES_{base}.json", references)
        words.save(folder / f"WORDMAP_{base}.json")
    return Prepared(base, skipped)


# %%
#| export
def find_base(folder: str | Path) -> str:
    """The name that ends every file in a prepared folder; `InputError` if none or several do."""
    names = sorted(path.name for path in Path(folder).glob("WORDMAP_*.json"))
    if not names:
        raise InputError(f"{folder}: holds no prepared data (no WORDMAP file); prepare it first")
    if len(names) > 1:
        raise InputError(f"{folder}: holds several data sets ({', '.join(names)}); keep one a folder")
    return names[0].removeprefix("WORDMAP_").removesuffix(".json")


def image_file(folder: str | Path, split: str) -> Path:
    """The HDF5 file of a split's images; `split` is TRAIN, VAL or TEST, in any case."""
    path = Path(folder) / f"{split.upper()}_IMAGES_{find_base(folder)}.hdf5"
    if not path.is_file():
        raise InputError(f"{path}: no such file; the splits are TRAIN, VAL and TEST")
    return path


def load_references(folder: str | Path, split: str) -> tuple[list[str], list[list[list[str]]]]:
    """A VAL or TEST split's image names and, for each, all its captions as people wrote them."""
    path = Path(folder) / f"REFERENCES_{find_base(folder)}.json"
    references = read_json(path)
    if split.upper() not in references:
        raise InputError(f"{path}: has no {split}; references are kept for VAL and TEST")
    images = references[split.upper()]
    return [image["image"] for image in images], [image["captions"] for image in images]


# %%
#| export
import os

import h5py
import torch
from torch import Tensor
from torch.utils.data import Dataset


class ImageDataset(Dataset):
    """A split's images, each once: item i is (3, 256, 256) uint8.

    The HDF5 file is opened by the process that first reads from it, so a `DataLoader` may use any
    number of workers, forked or spawned: an open file can be neither sent nor shared.

    Args:
        path: the HDF5 file, as `image_file` gives it.

    Raises:
        InputError: if it is not one of ours.
    """

    def __init__(self, path: str | Path):
        self.path, self._file, self._process = Path(path), None, None
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                self.captions_per_image = int(file.attrs["captions_per_image"])
                shape, dtype = file["images"].shape, file["images"].dtype
        except (OSError, KeyError):
            raise InputError(f"{path}: is no file of prepared images; prepare it again") from None
        if shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE) or dtype != np.uint8:
            raise InputError(f"{path}: images are {dtype} {shape}; prepare it again")
        self._length = shape[0]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i: int) -> Tensor:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        if self._process != os.getpid():  # never opened, or by the process this one was forked from
            self._file, self._process = h5py.File(self.path, "r", locking=False), os.getpid()
        return torch.from_numpy(self._file["images"][i])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_file": None, "_process": None}


class CaptionDataset(Dataset):
    """Item i is a caption and its image: the images on disk, the captions in memory.

    Args:
        folder: what `prepare`, or the original tutorial, wrote.
        split: TRAIN, VAL or TEST, in any case.

    Item:
        image (3, 256, 256) uint8 in [0, 255]: normalising belongs to the encoder;
        caption (max_len + 2,) int64; length () int64, counting `<start>` and `<end>`.

    Raises:
        InputError: if a file is missing or they do not belong together.
    """

    def __init__(self, folder: str | Path, split: str):
        folder, base = Path(folder), find_base(folder)
        self.vocabulary = Vocabulary.load(folder / f"WORDMAP_{base}.json")
        self.images = ImageDataset(image_file(folder, split))
        self.captions_per_image = self.images.captions_per_image
        captions = read_json(folder / f"{split.upper()}_CAPTIONS_{base}.json")
        lengths = read_json(folder / f"{split.upper()}_CAPLENS_{base}.json")
        self.captions = torch.tensor(captions, dtype=torch.int64).reshape(len(captions), -1)
        self.lengths = torch.tensor(lengths, dtype=torch.int64)
        if not len(captions) == len(lengths) == len(self.images) * self.captions_per_image:
            raise InputError(f"{folder}: the {split} files disagree; prepare the data again")

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        caption, length = self.captions[i], self.lengths[i]
        return self.images[i // self.captions_per_image], caption, length
