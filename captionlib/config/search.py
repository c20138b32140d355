"""How to look for a caption: beam search, and the other ways to write one."""

from __future__ import annotations

from dataclasses import dataclass

from captionlib.config.settings import Settings, setting

__all__ = ["DecodingConfig", "SearchConfig"]


@dataclass(frozen=True)
class SearchConfig(Settings):
    """Beam search, as chapter 06 builds it."""

    beam_size: int = setting(
        5, "hypotheses kept per image; 1 is greedy search", at_least=1
    )
    max_words: int = setting(50, "longest caption, in words", at_least=1)
    length_normalisation: float = setting(
        0.0, "rank by log-probability / length ** this; 0: raw sums", at_least=0
    )
    min_words: int = setting(0, "shortest caption, in words", at_least=0)
    forbid_unk: bool = setting(False, "never write <unk>")
    no_repeat: int = setting(
        0, "never write a run of this many words twice; 0: allow", at_least=0
    )

    def __post_init__(self):
        super().__post_init__()
        if self.min_words > self.max_words:
            raise ValueError(
                f"min_words must be at most max_words, {self.max_words}, got {self.min_words}"
            )


@dataclass(frozen=True)
class DecodingConfig(SearchConfig):
    """All ways to write a caption: `SearchConfig` plus diverse groups and
    sampling."""

    groups: int = setting(
        1, "diverse search: split the beam into this many groups", at_least=1
    )
    diversity: float = setting(
        0.5,
        "nats off a word for each earlier group that just chose it",
        at_least=0,
    )
    sample: bool = setting(
        False, "draw words instead of searching; needs beam size 1"
    )
    temperature: float = setting(
        1.0, "sampling: below 1 bolder, above 1 wilder", above=0
    )
    top_k: int = setting(
        0, "sampling: only from this many likeliest words; 0: all", at_least=0
    )
    top_p: float = setting(
        1.0,
        "sampling: only from the fewest words with this probability",
        above=0,
        at_most=1,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.beam_size % self.groups:
            raise ValueError(
                f"groups must divide the beam_size, {self.beam_size}, got {self.groups}"
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
                "temperature, top_k and top_p are for sampling: set sample, too"
            )
