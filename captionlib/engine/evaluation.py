"""Caption a split and score the captions, as `captionlib evaluate` does."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from captionlib import metrics
from captionlib.config import CaptionConfig, SplitConfig
from captionlib.engine.captioning import load_captioner
from captionlib.engine.progress import batches
from captionlib.io.sources.reading import read_data_set
from captionlib.io.versions import versions
from captionlib.scoring import bootstrap
from captionlib.scoring import meteor as meteor_program

__all__ = ["Evaluation", "evaluate_split"]


class Evaluation(NamedTuple):
    """The scores and the captions of a captioner."""

    # Flat, with "images" and "intervals", as `evaluate --json` prints it.
    scores: dict
    captions: dict[str, list[str]]  # words, by file name
    # Data, settings and versions, to store with the scores.
    about: dict

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
    progress: bool = True,
    **settings,
) -> Evaluation:
    """Caption the images of a split and score the captions.

    Args:
        karpathy_json, images: the data set, as `read_data_set` takes it.
        split: train, val or test.
        meteor: also compute METEOR, which needs Java.
        shares: how images are shared out, if their captions name no splits.
        progress: show a bar on a terminal.
        settings: of `CaptionConfig`, such as model="model" or beam_size=3.

    Raises:
        InputError: if the data, the model or Java is missing or unusable.
    """
    config = CaptionConfig(**settings)
    if meteor:  # fail now, not after an hour of captioning
        meteor_program.meteor_command()
    records = read_data_set(karpathy_json, images, split, shares=shares)
    captioner = load_captioner(config)
    hypotheses = []
    for batch in batches(
        records, config.batch_size, unit="images", progress=progress
    ):
        captions = captioner.caption_batch(
            [record.path for record in batch], config.beam_size, len(batch)
        )
        hypotheses += [caption.words for caption in captions]
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
    search = captioner.search
    if config.beam_size is not None:
        search = replace(search, beam_size=config.beam_size)
    # Its data, seed and validation scores.
    about = {
        "data": {"dataset": records[0].dataset, "split": split},
        "search": asdict(search),
        "model": asdict(captioner.model.config),
        "training": captioner.model.metrics,
        "versions": versions(),
    }
    names = [record.filename for record in records]
    return Evaluation(scores, dict(zip(names, hypotheses, strict=True)), about)


def _meteor(references: list, hypotheses: list) -> tuple[float, list[float]]:
    """METEOR and its interval, from one run of the program."""
    statistics = meteor_program.meteor_statistics(references, hypotheses)
    sums = bootstrap.resampled_sums(statistics)
    bounds = bootstrap.percentile_interval(meteor_program.meteor_of(sums))
    score = meteor_program.meteor_of(statistics.sum(axis=0))
    return float(score), bounds.tolist()
