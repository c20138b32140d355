"""Prepare a data set of any size: chapter 01's `prepare` for unchecked input.

It writes the same files as the chapter's plain form, with the same functions;
tests hold the two equal. It adds: decoding in several processes, constant
memory, skipping bad images, an early check for disk space, and files that
appear together or not at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from captionlib.config import DataConfig, SplitConfig, WordsConfig
from captionlib.data import (
    Vocabulary,
    encode_captions,
    name_files,
    references_of,
    usable_captions,
)
from captionlib.engine.words import Words, choose_words, vocabulary_of
from captionlib.io.claims import claim
from captionlib.io.errors import naming
from captionlib.io.files import (
    BadItem,
    InputError,
    atomic_group,
    new_hdf5,
    require_free_space,
    write_json,
    write_json_rows,
)
from captionlib.io.identity import of_source, of_words, write_identity
from captionlib.io.images import (
    IMAGE_SIZE,
    decoding_pool,
    try_images,
    usable_cores,
)
from captionlib.io.sources.reading import read_data_set
from captionlib.io.sources.records import Record

__all__ = [
    "BATCH",
    "IN_USE",
    "LACKS",
    "MOST",
    "Prepared",
    "decode_in_order",
    "made_of",
    "prepare",
    "prepare_data",
]

BATCH = 16  # images per request to a process, since each request costs time
MOST = 2  # batches for each process, being decoded or waiting to be written
ONE = (3, IMAGE_SIZE, IMAGE_SIZE)
LACKS = {
    "TRAIN": "leaves no image to train on; check its splits",
    "VAL": "has no images of the split val, which the choice of the best epoch "
    "needs; give some of them that split",
}
IN_USE = (
    "{}: is being prepared or read by another process; wait for it or name "
    "another folder"
)


class Prepared(NamedTuple):
    """The result of `prepare`."""

    # End of all file names: {dataset}_{n}_cap_per_img_{m}_min_word_freq.
    base: str
    # A line for each skipped image or caption, with the reason.
    skipped: list[str]
    # Lines about the data set that a user should see.
    notes: list[str]
    words: Words


def prepare(
    karpathy_json: str | Path,
    images: str | Path,
    to: str | Path,
    config: DataConfig | None = None,
    *,
    shares: SplitConfig | None = None,
    words_of: str | Path | None = None,
    new_words: str = "add",
    skip_bad: bool = False,
    workers: int | None = None,
    needs: Sequence[str] = ("TRAIN",),
    progress: bool = True,
) -> Prepared:
    """Convert a data set to the files that training reads.

    All files appear at the end, or none does. Equal input gives equal bytes.

    Args:
        karpathy_json: captions in any format that `read_data_set` knows.
        images: the folder that its file names start from.
        to: the folder to write to; its other files are left alone.
        config: captions per image, rare words, longest caption, seed.
        shares: how images are shared out, if their captions name no splits.
        words_of, new_words: for fine-tuning; see `WordsConfig`.
        skip_bad: skip bad images and captions instead of stopping at the first.
        workers: processes that decode images; None for one per core.
        needs: splits that must have images.
        progress: show a bar on stderr, if that is a terminal.

    Raises:
        InputError: if an input is bad, no word would be kept, the disk is too
            small, or a training or another preparation uses the folder; nothing
            is written then.
    """
    config, to, skipped, notes = config or DataConfig(), Path(to), [], []
    source = WordsConfig(words_of, new_words)
    known = vocabulary_of(source)
    # Where bad items are noted; None means that they are raised.
    bad = skipped if skip_bad else None
    records = read_data_set(
        karpathy_json, images, shares=shares, skipped=bad, notes=notes
    )
    base = name_files(records[0].dataset, config)
    splits = {
        name: [r for r in records if r.split == name]
        for name in ("TRAIN", "VAL", "TEST")
    }
    too_long = [
        r for r in splits["TRAIN"] if not usable_captions(r, config.max_len)
    ]
    splits["TRAIN"] = [
        r for r in splits["TRAIN"] if usable_captions(r, config.max_len)
    ]
    skipped += [
        f"{r.path}: none of its captions has {config.max_len} words or fewer"
        for r in too_long
    ]

    for name in needs:
        if not splits[name]:
            raise InputError(f"{karpathy_json}: {LACKS[name]}")
    with naming(karpathy_json):
        counted = splits["TRAIN"] + too_long
        choose_words(splits, counted, config, source, known)
    require_free_space(to, _room(len(records), config))
    decoder = decode_in_order(
        [r.path for found in splits.values() for r in found],
        workers or usable_cores(),
    )
    with (
        claim(to, "data", IN_USE.format(to)),
        atomic_group(to, seal=f"WORDMAP_{base}.json") as folder,
        closing(decoder) as decoded,
    ):
        for split, found in splits.items():
            splits[split] = _write_images(
                folder / f"{split}_IMAGES_{base}.hdf5",
                found,
                decoded,
                config.captions_per_image,
                skipped=bad,
                progress=progress,
            )
        if not splits["TRAIN"]:
            raise InputError(f"{karpathy_json}: {LACKS['TRAIN']}")
        counted = splits["TRAIN"] + too_long
        with naming(karpathy_json):
            words = choose_words(splits, counted, config, source, known)
        vocabulary = words.vocabulary
        for split, kept in splits.items():
            _write_captions(folder, split, base, kept, vocabulary, config)
        references = {s: references_of(splits[s]) for s in ("VAL", "TEST")}
        write_json(folder / f"REFERENCES_{base}.json", references)
        vocabulary.save(folder / f"WORDMAP_{base}.json")
        write_identity(folder, base, made_of(records, config, source, known))
    return Prepared(base, skipped, notes, words)


def made_of(
    records: list[Record],
    config: DataConfig,
    source: WordsConfig,
    known: Vocabulary | None,
) -> dict:
    """The identity of what data are prepared from, with the settings."""
    made = of_source(records) | asdict(config)
    if known is not None:
        words = {"words of the captioner": of_words(known.word_map)}
        made |= words | {"new_words": source.new_words}
    return made


def decode_in_order(
    paths: Sequence[Path], workers: int
) -> Iterator[np.ndarray | InputError]:
    """`read_image` of each path, in order, in several processes.

    Memory holds at most `MOST` batches per process.

    Yields:
        (3, 256, 256) uint8, or an `InputError` if the image is bad.
    """
    batches = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
    workers = min(workers, len(batches) // 4)  # starting a process must pay off
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


def _room(images: int, config: DataConfig) -> int:
    """Size of the files in bytes: pixels, encoded captions and references."""
    ids = config.captions_per_image * 7 * (config.max_len + 2)
    return images * (3 * IMAGE_SIZE**2 + ids + 1000) + 2**24


def _write_images(
    path: Path,
    records: list[Record],
    decoded: Iterator[np.ndarray | InputError],
    captions_per_image: int,
    *,
    skipped: list[str] | None,
    progress: bool,
) -> list[Record]:
    """Write the images of `records`, the next ones in `decoded`, to HDF5.

    Returns:
        The records whose images are in the file, in its order.

    Raises:
        InputError: at the first bad image, if `skipped` is None; otherwise bad
            images are noted there.
    """
    kept = []
    with new_hdf5(path) as file:
        file.attrs["captions_per_image"] = captions_per_image
        images = file.create_dataset(
            "images",
            (len(records), *ONE),
            np.uint8,
            chunks=(1, *ONE),  # so that the end can be truncated
            maxshape=(None, *ONE),
            track_times=False,  # equal images give equal bytes
        )
        bar = tqdm(records, path.name, disable=None if progress else True)
        for record in bar:
            image = next(decoded)
            if not isinstance(image, InputError):
                # This avoids HDF5's copies of a chunk.
                images.id.write_direct_chunk((len(kept), 0, 0, 0), image)
                kept.append(record)
            elif skipped is None:
                raise image
            else:
                skipped.append(str(image))
        images.resize(len(kept), axis=0)
    return kept


def _write_captions(
    folder: Path,
    split: str,
    base: str,
    records: list[Record],
    vocabulary: Vocabulary,
    config: DataConfig,
) -> None:
    """Write a split's encoded captions, one at a time, and their lengths."""
    lengths = []

    def rows() -> Iterator[list[int]]:
        for ids, length in encode_captions(records, split, vocabulary, config):
            lengths.append(length)
            yield ids

    write_json_rows(folder / f"{split}_CAPTIONS_{base}.json", rows())
    write_json(folder / f"{split}_CAPLENS_{base}.json", lengths)


def prepare_data(
    karpathy_json: str | Path,
    images: str | Path,
    to: str | Path,
    config: DataConfig | None = None,
    **options,
) -> Prepared:
    """As `prepare`; errors about bad images name the option that skips them."""
    try:
        return prepare(karpathy_json, images, to, config, **options)
    except BadItem as error:
        raise InputError(
            f"{error}; captionlib prepare --skip-bad leaves it out"
        ) from None
