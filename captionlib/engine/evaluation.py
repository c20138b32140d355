"""Caption a split and score the captions, as `captionlib evaluate` does."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from captionlib import metrics
from captionlib.captioner import Captioner
from captionlib.config import CaptionConfig, SplitConfig
from captionlib.engine.captioning import caption_files, load_captioner
from captionlib.io.files import BadItem, InputError, write_json
from captionlib.io.identity import of_pixels
from captionlib.io.sources.reading import read_data_set
from captionlib.io.sources.records import Record
from captionlib.io.versions import versions
from captionlib.scoring import bootstrap
from captionlib.scoring import meteor as meteor_program

__all__ = ["Evaluation", "evaluate_split"]

SECONDS = 5  # between two writings of the captions so far


class Evaluation(NamedTuple):
    """The scores and the captions of a captioner."""

    # Flat, with "images" and "intervals", as `evaluate --json` prints it.
    scores: dict
    captions: dict[str, list[str]]  # words, by file name
    # Data, settings and versions, to store with the scores.
    about: dict
    # A line for each bad image or caption that was left out, with the reason.
    skipped: list[str]
    # What one should know before quoting the scores.
    remarks: list[str]

    def report(self) -> dict:
        """The scores with their origin, as written by `evaluate
        --save-results`."""
        about = dict(self.about)
        return {"data": about.pop("data"), "result": self.scores, **about}


def evaluate_split(
    karpathy_json: str | Path,
    images: str | Path,
    split: str,
    *,
    meteor: bool = False,
    shares: SplitConfig | None = None,
    skip_bad: bool = False,
    save_captions: str | Path | None = None,
    progress: bool = True,
    **settings,
) -> Evaluation:
    """Caption the images of a split and score the captions.

    Args:
        karpathy_json, images: the data set, as `read_data_set` takes it.
        split: train, val or test.
        meteor: also compute METEOR, which needs Java.
        shares: how images are shared out, if their captions name no splits.
        skip_bad: leave bad images and captions out instead of stopping at the
            first.
        save_captions: a JSON file for the captions by file name, written from
            time to time and before scoring, so that no error loses them.
        progress: show a bar on a terminal.
        settings: of `CaptionConfig`, such as model="model" or beam_size=3.

    Raises:
        InputError: if the data, the model or Java is missing or unusable.
    """
    config = CaptionConfig(**settings)
    skipped, remarks, seen = [], [], []
    # Where bad items are noted; None means that they are raised.
    bad = skipped if skip_bad else None
    try:
        records = read_data_set(
            karpathy_json,
            images,
            split,
            shares=shares,
            skipped=bad,
            notes=remarks,
        )
        if meteor:  # fail now, not after an hour of captioning
            meteor_program.check_meteor([r.captions for r in records])
        captioner = load_captioner(config)
        captions = _caption_records(
            captioner,
            records,
            config.batch_size,
            skipped=bad,
            seen=seen,
            to=save_captions,
            progress=progress,
        )
    except BadItem as error:
        raise InputError(
            f"{error}; captionlib evaluate --skip-bad leaves it out"
        ) from None
    records = [r for r in records if r.filename in captions]
    if not records:
        raise InputError(
            f"{images}: holds no readable image of {split}, such as "
            f"{skipped[-1]}"
        )
    hypotheses = list(captions.values())
    references = [
        [list(caption) for caption in record.captions] for record in records
    ]
    scores = {
        **metrics.score(references, hypotheses),
        "images": len(records),
        "intervals": bootstrap.intervals(references, hypotheses),
    }
    if meteor:
        scores["meteor"], scores["intervals"]["meteor"] = _meteor(
            references, hypotheses
        )
    # Its data, seed and validation scores.
    about = {
        "data": {"dataset": records[0].dataset, "split": split},
        "search": asdict(captioner.search),
        "model": captioner.model.shape,
        "training": captioner.model.metrics,
        "versions": versions(),
    }
    if skipped:
        about["data"]["left_out"] = len(skipped)
    remarks += _remarks(scores, references)
    if seen and split != "train":
        about["data"]["trained_on"] = len(seen)
        remarks.append(
            f"{len(seen)} of {len(records)} images were in the captioner's "
            f"training data, such as {seen[0]}; score it on other images, or "
            "use the splits that it was trained with"
        )
    return Evaluation(scores, captions, about, skipped, remarks)


def _caption_records(
    captioner: Captioner,
    records: list[Record],
    batch_size: int,
    *,
    skipped: list[str] | None,
    seen: list[str],
    to: str | Path | None,
    progress: bool,
) -> dict[str, list[str]]:
    """The captions of `records`, by file name; `to` never loses any.

    Those that the captioner was trained on are noted in `seen`.

    Raises:
        BadItem: at the first bad image, if `skipped` is None; otherwise bad
            images are noted there.
    """

    def watch(number: int, pixels: np.ndarray) -> None:
        known = captioner.model.trained_on
        if known and of_pixels(pixels) in known:
            seen.append(records[number].filename)

    captions, written = {}, -SECONDS
    try:
        for number, caption in caption_files(
            captioner,
            [record.path for record in records],
            batch_size=batch_size,
            watch=watch,
            progress=progress,
        ):
            if not isinstance(caption, InputError):
                captions[records[number].filename] = caption.words
            elif skipped is None:
                raise BadItem(str(caption))
            else:
                skipped.append(str(caption))
            if to is not None and time.monotonic() - written > SECONDS:
                write_json(to, captions, indent=1)
                written = time.monotonic()
    finally:
        if to is not None and captions:
            write_json(to, captions, indent=1)
    return captions


def _remarks(scores: dict, references: list) -> list[str]:
    """What one should know before quoting these scores."""
    if scores["images"] == 1:
        return [
            "one image: CIDEr-D is 0 whatever the caption, since it weighs "
            "words by how few images have them, and no score has an interval; "
            "evaluate several images"
        ]
    # Zero for people's own captions: every word is in every image's captions.
    own = [captions[0] for captions in references]
    if scores["cider_d"] == 0 and not any(
        metrics.cider_d_scores(references, own)
    ):
        return [
            "CIDEr-D is 0 whatever the caption, since it weighs words by how "
            "few images have them, and these images' captions all share "
            "theirs; evaluate images with different captions"
        ]
    return []


def _meteor(references: list, hypotheses: list) -> tuple[float, list[float]]:
    """METEOR and its interval, from one run of the program."""
    statistics = meteor_program.meteor_statistics(references, hypotheses)
    sums = bootstrap.resampled_sums(statistics)
    bounds = bootstrap.percentile_interval(meteor_program.meteor_of(sums))
    score = meteor_program.meteor_of(statistics.sum(axis=0))
    return float(score), bounds.tolist()
