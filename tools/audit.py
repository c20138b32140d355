"""Measure how far the original's scoring protocol moves BLEU-4: `python -m
tools.audit --help`.

Chapter 07 lists the rules in which the original tutorial's validation differs
from this book's, and prints the figures of this tool. Each rule is applied
alone, then all together, to the captions of a captioner, in one pass over the
images. The effect of a vocabulary counted over all splits is measured, too.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_packed_sequence
from tqdm import tqdm

from captionlib.beam_search import beam_search
from captionlib.config import SearchConfig
from captionlib.data import Vocabulary
from captionlib.io.files import InputError, read_json, write_json
from captionlib.io.images import read_image
from captionlib.io.karpathy import SPLITS, read_karpathy
from captionlib.io.versions import versions
from captionlib.metrics import bleu_of, bleu_statistics, ngram_counts
from captionlib.model import CaptionModel
from captionlib.scoring.bootstrap import percentile_interval, resampled_sums

TO = Path(__file__).parent.parent / "book" / "results" / "protocol.json"
SEED, RESAMPLES = 0, 1000


def until_end(words: list[str]) -> list[str]:
    """The words before the first `<end>`, or all words."""
    return words[: words.index("<end>")] if "<end>" in words else words


def with_changes(
    references: list, written: list, forced: list, known: set[str]
) -> dict[str, tuple[list, list]]:
    """References and hypotheses in our protocol, and under each of the
    original's rules.

    Some rules need a hypothesis for each *reference*; then the rows of an image
    are adjacent.

    Args:
        references: for each of I images, its captions.
        written: for each image, the model's free-running caption, with "<end>"
            if it is reached.
        forced: for each image and reference, the model's teacher-forced word at
            each step.
        known: the words of the model's vocabulary.

    Returns:
        for "none", each rule, and "all" of them: references and hypotheses,
        ready to be scored.
    """

    def masked(captions):
        return [
            [word if word in known else "<unk>" for word in words]
            for words in captions
        ]

    def ended(captions):
        return [[*words, "<end>"] for words in captions]

    free = [until_end(words) for words in written]
    each = [captions for captions in references for _ in captions]
    truth = [words for captions in references for words in captions]
    copies = [
        words
        for words, captions in zip(free, references, strict=True)
        for _ in captions
    ]
    cut = [
        words[: len(true)] for words, true in zip(copies, truth, strict=True)
    ]
    told = [words for rows in forced for words in rows]
    return {
        "none": (references, free),
        "unk": ([masked(captions) for captions in references], free),
        "end": ([ended(captions) for captions in references], written),
        "cut": (each, cut),
        "teacher_forcing": (each, [until_end(words) for words in told]),
        "repeated": (each, copies),
        "all": ([ended(masked(captions)) for captions in each], told),
    }


@torch.inference_mode()
def write_and_repeat(
    model: CaptionModel,
    paths: Sequence[Path],
    references: list,
    batch_size: int = 32,
) -> tuple[list, list]:
    """Greedy captions of the images, and teacher-forced words for each
    reference.

    Returns:
        for each image, its words, with "<end>" if it is reached; and for each
        image and reference, the likeliest token at each step after the true
        ones, up to the step of `<end>`.
    """
    model.eval()
    words, search = model.vocabulary, SearchConfig(beam_size=1, max_words=50)
    written, forced = [], []
    for start in tqdm(
        range(0, len(paths), batch_size), unit=" batches", disable=None
    ):
        batch = references[start : start + batch_size]
        pixels = np.stack(
            [read_image(path) for path in paths[start : start + batch_size]]
        )
        encoder_out = model.encode(torch.from_numpy(pixels))
        for best in beam_search(model.decoder, encoder_out, words, search):
            written.append(
                words.decode(best.word_ids) + ["<end>"] * best.finished
            )
        flat = [caption for captions in batch for caption in captions]
        longest = max(map(len, flat))
        lengths = torch.tensor([len(caption) + 2 for caption in flat])
        targets = torch.tensor(
            [words.encode(caption, longest) for caption in flat]
        )
        out = model.decoder(encoder_out, targets, lengths)
        guesses, _ = pad_packed_sequence(
            out.targets._replace(data=out.logits.data.argmax(dim=1)),
            batch_first=True,
        )
        rows = [
            [words.words[i] for i in row[: n - 1]]
            for row, n in zip(guesses.tolist(), lengths.tolist(), strict=True)
        ]
        each = len(rows) // len(batch)
        forced += [rows[i : i + each] for i in range(0, len(rows), each)]
    return written, forced


def counted_everywhere(
    captions: dict[str, list], vocabulary: Vocabulary, min_word_freq: int
) -> set[str]:
    """Words in a vocabulary counted over all splits, but not in the model's
    own.

    Raises:
        InputError: if the model's vocabulary is not that of these captions.
    """
    ours = set(Vocabulary.build(captions["TRAIN"], min_word_freq).words)
    if ours != set(vocabulary.words):
        raise InputError(
            f"the model's vocabulary has {len(vocabulary):,} entries, and the "
            f"training captions with --min-word-freq {min_word_freq} give "
            f"{len(ours):,}, not the same; name its data"
        )
    everything = (caption for split in captions.values() for caption in split)
    return set(Vocabulary.build(everything, min_word_freq).words) - ours


def with_oracle(references: list, hypotheses: list, new: set[str]) -> list:
    """`hypotheses` with words of `new` put where they gain most.

    This is an oracle: it sees the references. In each caption, it repeats the
    replacement by a new word from the image's references that adds most to the
    matches (each n-gram order counts by the share it adds, as in BLEU-4's
    geometric mean), until there is none.
    """
    whole = bleu_statistics(references, hypotheses).sum(axis=0)[:4]
    found = []
    for captions, hypothesis in zip(references, hypotheses, strict=True):
        candidates = sorted(
            {word for caption in captions for word in caption} & new
        )
        most: Counter = Counter()
        for caption in captions:
            most |= ngram_counts(caption)

        def matches(words, most=most):
            matched = np.zeros(4)
            for ngram, count in (ngram_counts(words) & most).items():
                matched[len(ngram) - 1] += count
            return (matched / np.maximum(whole, 1)).sum()

        best, value = list(hypothesis), matches(hypothesis)
        while candidates:
            tries = [
                [*best[:i], word, *best[i + 1 :]]
                for i in range(len(best))
                for word in candidates
            ]
            values = [matches(words) for words in tries]
            if not tries or max(values) <= value + 1e-12:
                break
            value = max(values)
            best = tries[values.index(value)]
        found.append(best)
    return found


def by_image(references: list, hypotheses: list, images: int) -> np.ndarray:
    """BLEU's nine counts for each image, summed over its rows: (images, 9)."""
    return (
        bleu_statistics(references, hypotheses)
        .reshape(images, -1, 9)
        .sum(axis=1)
    )


def measure(
    references: list,
    written: list,
    forced: list,
    known: set[str],
    new: set[str],
) -> dict:
    """BLEU-4 in our protocol and with each change, paired differences, and
    counts.

    Args:
        references: for each of I images, n captions.
        written, forced: as `write_and_repeat` returns them.
        known: the model's words, special tokens included.
        new: words that a vocabulary counted over all splits adds.
    """
    images, each = len(references), len(references[0])
    changes = with_changes(references, written, forced, known)
    free = changes["none"][1]
    wider = with_changes(references, written, forced, known | new)
    changes["vocabulary"] = (references, with_oracle(references, free, new))
    changes["unk_vocabulary"] = wider["unk"]
    statistics = {
        name: by_image(*pair, images) for name, pair in changes.items()
    }
    drawn = {
        name: bleu_of(resampled_sums(rows, resamples=RESAMPLES, seed=SEED))[
            :, 3
        ]
        for name, rows in statistics.items()
    }
    bleu4 = {
        name: float(bleu_of(rows.sum(axis=0))[3])
        for name, rows in statistics.items()
    }
    result = {
        name: {
            "bleu4": bleu4[name],
            "difference": bleu4[name] - bleu4["none"],
            "interval": percentile_interval(
                drawn[name] - drawn["none"]
            ).tolist(),
        }
        for name in changes
        if name != "none"
    }
    # Copies of an image, counted as separate images.
    copies = np.repeat(statistics["none"], each, axis=0)
    naive = bleu_of(resampled_sums(copies, resamples=RESAMPLES, seed=SEED))[
        :, 3
    ]
    tokens = Counter(
        word for captions in references for words in captions for word in words
    )
    changed = zip(free, changes["vocabulary"][1], strict=True)
    return {
        "baseline": {
            "bleu4": bleu4["none"],
            "interval": percentile_interval(drawn["none"]).tolist(),
        },
        "changes": result,
        "repeated_as_images": percentile_interval(naive).tolist(),
        "counts": {
            "images": images,
            "references": each,
            "reference_words": sum(tokens.values()),
            "unknown_reference_words": sum(
                n for w, n in tokens.items() if w not in known
            ),
            "unknown_words_written": sum(
                words.count("<unk>") for words in free
            ),
            "captions_with_unknown": sum("<unk>" in words for words in free),
            "unfinished": sum("<end>" not in words for words in written),
            "forced": sum(map(len, forced)),
            "forced_past_end": sum(
                "<end>" in words[:-1] for rows in forced for words in rows
            ),
            "vocabulary": len(known),
            "new_words": len(new),
            "new_reference_words": sum(
                n for w, n in tokens.items() if w in new
            ),
            "new_words_placed": sum(
                a != b
                for old, now in changed
                for a, b in zip(old, now, strict=True)
            ),
        },
    }


def frequency(model: CaptionModel, given: int | None) -> int:
    """The model's minimum word frequency: as given, or from the name of its
    data."""
    named = re.search(r"_(\d+)_min_word_freq", str(model.metrics))
    if given is None and named is None:
        raise InputError(
            "the model does not say how its words were counted; give "
            "--min-word-freq"
        )
    return given or int(named.group(1))


def split_captions(karpathy_json: str | Path) -> dict[str, list]:
    """All captions of the JSON, by split; the images need not exist."""
    captions: dict[str, list] = {"TRAIN": []}
    for entry in read_json(karpathy_json)["images"]:
        split = captions.setdefault(SPLITS[entry["split"]], [])
        split += [sentence["tokens"] for sentence in entry["sentences"]]
    return captions


def same_number(references: Iterable[Sequence]) -> list[list[list[str]]]:
    """The references, cut to an equal number per image for teacher forcing."""
    references = list(references)
    least = min(map(len, references))
    return [
        [list(words) for words in captions[:least]] for captions in references
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument(
        "--model", required=True, help='a folder written by train, or "toy"'
    )
    parser.add_argument("--karpathy-json", required=True)
    parser.add_argument("--images", required=True, help="folder of the images")
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--limit", type=int, help="number of images (all)")
    parser.add_argument(
        "--min-word-freq",
        type=int,
        help="minimum word frequency of the model's data",
    )
    parser.add_argument(
        "--to", default=TO, help=f"JSON file to write ({TO.name})"
    )
    args = parser.parse_args(argv)
    try:
        records = read_karpathy(args.karpathy_json, args.images, args.split)
        records = records[: args.limit]
        model = CaptionModel.load(args.model)
        captions = split_captions(args.karpathy_json)
        freq = frequency(model, args.min_word_freq)
        new = counted_everywhere(captions, model.vocabulary, freq)
        references = same_number(record.captions for record in records)
        found = write_and_repeat(
            model, [record.path for record in records], references
        )
    except InputError as error:
        print(f"tools.audit: {error}", file=sys.stderr)
        return 2
    result = measure(references, *found, set(model.vocabulary.words), new)
    assert all(
        math.isfinite(row["bleu4"]) for row in result["changes"].values()
    )
    stored = {
        "data": {
            "dataset": records[0].dataset,
            "split": args.split,
            "counted": sorted(
                name.lower() for name, rows in captions.items() if rows
            ),
            "min_word_freq": freq,
        },
        "audit": result,
        "search": {"beam_size": 1},
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "confidence": 0.95},
        "model": asdict(model.config),
        "training": model.metrics,
        "versions": versions(),
    }
    write_json(args.to, stored, indent=1)
    print(
        f"{args.to}: BLEU-4 {result['baseline']['bleu4']:.2f} in our protocol"
    )
    for name, row in result["changes"].items():
        low, high = row["interval"]
        print(
            f"  {name:<16} {row['difference']:+7.3f}   between {low:+7.3f} and "
            f"{high:+7.3f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
