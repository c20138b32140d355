"""Validation: what scores a model after each epoch, on captions that it writes
freely."""

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
    """`search` with another beam and nothing drawn, so that epochs differ by
    the model alone."""
    default = DecodingConfig()
    plain = ("groups", "sample", "temperature", "top_k", "top_p")
    return replace(
        search,
        beam_size=beam_size,
        **{name: getattr(default, name) for name in plain},
    )


class Validator:
    """A function of the model: its scores on the validation images, in a flat
    dict.

    Args:
        images: an item per image, pixels or grids, as `CaptionModel.encode`
            takes them.
        references: each image's captions, lists of words.
        search: how captions are looked for.
        about: what is added to the scores.
        device: where the model is.
        processes: those that share the images.
        progress: show a bar on a terminal.
        say: gets one line an epoch.
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
