"""Validation: score a model after each epoch on captions that it generates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from captionlib.beam_search import beam_search
from captionlib.config import DecodingConfig
from captionlib.engine.processes import ALONE, Processes
from captionlib.engine.progress import batches
from captionlib.metrics import score

__all__ = ["Validator", "plain_search"]


def plain_search(search: DecodingConfig, beam_size: int) -> DecodingConfig:
    """`search` with another beam and without sampling or groups.

    So epochs differ by the model alone."""
    default = DecodingConfig()
    plain = ("groups", "sample", "temperature", "top_k", "top_p")
    return replace(
        search,
        beam_size=beam_size,
        **{name: getattr(default, name) for name in plain},
    )


class Validator:
    """A function from a model to its scores on the validation images.

    Args:
        images: one item per image, pixels or grids, as `CaptionModel.encode`
            takes them.
        references: each image's captions, lists of words.
        search: settings of the search.
        about: entries to add to the scores.
        device: the model's device.
        processes: those that share the images.
        progress: show a bar on a terminal.
        say: called with one line per epoch.
    """

    def __init__(
        self,
        images,
        references: list,
        search: DecodingConfig,
        about: dict,
        *,
        device: torch.device | str = "cpu",
        processes: Processes = ALONE,
        progress: bool = True,
        say: Callable[[str], None] = print,
    ):
        self.images, self.references = images, references
        self.search, self.about = search, about
        self.device, self.processes = device, processes
        self.progress, self.say = progress, say

    @torch.inference_mode()
    def __call__(self, model) -> dict:
        hypotheses = []
        mine = self.processes.share(range(len(self.images)))
        bar = self.progress and self.processes.is_main
        for numbers in batches(
            mine, 32, unit="validation images", progress=bar
        ):
            batch = torch.stack(
                [torch.as_tensor(self.images[i]) for i in numbers]
            )
            encoder_out = model.encode(batch.to(self.device))
            found = beam_search(
                model.decoder, encoder_out, model.vocabulary, self.search
            )
            hypotheses += [
                model.vocabulary.decode(best.word_ids) for best in found
            ]
        scores = score(self.references, self.processes.gather(hypotheses))
        self.say(
            f"BLEU-4 {scores['bleu4']:.2f}, CIDEr-D {scores['cider_d']:.2f}"
        )
        return scores | self.about | {"images": len(self.images)}
