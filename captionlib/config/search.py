"""Settings for writing captions: beam search and other decoding methods."""

from __future__ import annotations

from dataclasses import dataclass

from captionlib.config.settings import Settings, setting

__all__ = ["DecodingConfig", "SearchConfig"]


@dataclass(frozen=True)
class SearchConfig(Settings):
    """Settings of beam search, as chapter 06 builds it."""

    beam_size: int = setting(
        5,
        "hypotheses kept per image; 1 is greedy search",
        at_least=1,
        at_most=10_000,
    )
    max_words: int = setting(
        50,
        "maximum length of a caption, in words",
        at_least=1,
        at_most=1000,
    )
    length_normalisation: float = setting(
        0.0,
        "rank by log-probability / length ** this; 0: by the sum",
        at_least=0,
        at_most=10,
    )
    min_words: int = setting(
        0, "minimum length of a caption, in words", at_least=0
    )
    forbid_unk: bool = setting(False, "never write <unk>")
    no_repeat: int = setting(
        0, "never repeat an n-gram of this many words; 0: allow", at_least=0
    )

    def __post_init__(self):
        super().__post_init__()
        if self.min_words > self.max_words:
            raise ValueError(
                f"min_words must be at most max_words, {self.max_words}, got "
                f"{self.min_words}"
            )


@dataclass(frozen=True)
class DecodingConfig(SearchConfig):
    """Settings of all decoding methods: `SearchConfig`, diverse groups,
    sampling."""

    groups: int = setting(
        1,
        "diverse beam search: split the beam into this many groups",
        at_least=1,
    )
    diversity: float = setting(
        0.5,
        "diverse beam search: penalty on a word, in nats, for each earlier "
        "group that just chose it",
        at_least=0,
        at_most=1000,
    )
    sample: bool = setting(
        False, "sample words instead of searching; needs beam size 1"
    )
    temperature: float = setting(
        1.0, "sampling: above 1 more varied, below 1 less", above=0
    )
    top_k: int = setting(
        0,
        "sampling: only among this many likeliest words; 0: all",
        at_least=0,
        at_most=1_000_000,
    )
    top_p: float = setting(
        1.0,
        "sampling: only among the fewest words with this total probability",
        above=0,
        at_most=1,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.beam_size % self.groups:
            raise ValueError(
                f"groups must divide the beam_size, {self.beam_size}, got "
                f"{self.groups}"
            )
        if self.sample and self.beam_size != 1:
            raise ValueError(
                f"beam_size must be 1 for sampling, got {self.beam_size}"
            )
        if not self.sample and (self.temperature, self.top_k, self.top_p) != (
            1,
            0,
            1,
        ):
            raise ValueError(
                "temperature, top_k and top_p need sampling: set sample, too"
            )
