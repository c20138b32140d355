"""Choose the words of a data set, and say what becomes of the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from captionlib.config import DataConfig, WordsConfig
from captionlib.data import Vocabulary
from captionlib.io.files import InputError, package_folder
from captionlib.io.sources.records import Record

__all__ = ["MANY", "Words", "choose_words", "vocabulary_of"]

MANY = 0.1  # share of <unk> from which a cure is named
SHOWN = 5  # words in a line


class Words(NamedTuple):
    """The words of prepared data, and the share of those without an id."""

    vocabulary: Vocabulary
    # Frequent words that the captioner of `words_of` lacks, by frequency.
    new: list[str]
    # By split, TRAIN, VAL and TEST, if it has captions: the share of its tokens
    # that become `<unk>`.
    unknown: dict[str, float]
    # What a user should know of all that.
    lines: list[str]


def vocabulary_of(source: WordsConfig) -> Vocabulary | None:
    """The words of the captioner to be fine-tuned, if there is one.

    Raises:
        InputError: if it can't be found, or new words are to be left out of
            none.
    """
    if source.words_of is None:
        if source.new_words == "unk":
            raise InputError(
                "--new-words unk: goes with --words-of; name a captioner there"
            )
        return None
    return Vocabulary.load(package_folder(source.words_of) / "vocabulary.json")


def choose_words(
    splits: dict[str, list[Record]],
    counted: Iterable[Record],
    config: DataConfig,
    source: WordsConfig,
    known: Vocabulary | None,
) -> Words:
    """Number the words of training captions, anew or on from a captioner's.

    Args:
        splits: the records of TRAIN, VAL and TEST.
        counted: the records whose words are counted.
        config: how often a word must occur.
        source: the captioner to be fine-tuned, if any.
        known: its `vocabulary_of`.

    Raises:
        InputError: if every word of the training captions would become `<unk>`.
    """
    vocabulary = Vocabulary.build(
        (tokens for record in counted for tokens in record.captions),
        config.min_word_freq,
    )
    new = []
    if known is not None:
        new = [w for w in vocabulary.words if w not in known.word_map]
        added = new if source.new_words == "add" else []
        more = {word: i for i, word in enumerate(added, len(known))}
        vocabulary = Vocabulary(known.word_map | more)
    unknown = {
        split: _unknown(vocabulary, records)
        for split, records in splits.items()
        if records
    }
    if unknown.get("TRAIN") == 1:
        often = f"occurs {_times(config.min_word_freq)}"
        if known is not None:
            often = f"is one of {source.words_of}"
            often += f" or {often}" * (source.new_words == "add")
        raise InputError(
            f"no word of the training captions {often}, so all would become "
            f"<unk>; try {_cure(config, source)}"
        )
    kept = _kept_line(len(vocabulary) - 4, new, config, source)
    lines = [kept, *_unknown_lines(unknown, config, source)]
    return Words(vocabulary, new, unknown, lines)


def _kept_line(
    kept: int, new: list[str], config: DataConfig, source: WordsConfig
) -> str:
    model, count = source.words_of, len(new)
    if model is None:
        often = _times(config.min_word_freq)
        return f"words: {kept:,} kept, each {often} in training"
    if not new:
        return f"words: {kept:,}, those of {model}; it lacks none"
    named = ", ".join(new[:SHOWN]) + ", ..." * (count > SHOWN)
    if source.new_words == "unk":
        return (
            f"words: {kept:,}, those of {model}; {count:,} that it lacks "
            f"become <unk>: {named}"
        )
    return (
        f"words: {kept:,}, those of {model} and {count:,} that it lacks, which "
        f"are added: {named}"
    )


def _unknown_lines(
    unknown: dict[str, float], config: DataConfig, source: WordsConfig
) -> Iterator[str]:
    much = f", which is a lot; {_cure(config, source)} would lower it"
    for split, name in (("TRAIN", "training"), ("VAL", "validation")):
        if split in unknown:
            share = unknown[split]
            line = f"{name}: {share:.1%} of the words in captions become <unk>"
            yield line + much * (share > MANY)
    if "VAL" not in unknown:
        yield "validation: no images; train needs some, to choose the best epoch"
    if "TEST" not in unknown:
        yield "test: no images"


def _cure(config: DataConfig, source: WordsConfig) -> str:
    """What leaves fewer words as `<unk>`."""
    if source.words_of is not None and source.new_words == "unk":
        return "--new-words add"
    least = config.min_word_freq
    below = f"a --min-word-freq below {least}"
    return below if least > 1 else "more training captions"


def _unknown(vocabulary: Vocabulary, records: Sequence[Record]) -> float:
    words = [w for r in records for tokens in r.captions for w in tokens]
    return sum(w not in vocabulary.word_map for w in words) / len(words)


def _times(n: int) -> str:
    return f"at least {n} times" if n > 1 else "at least once"
