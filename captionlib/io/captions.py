"""Check captions before they are scored.

A caption is a list of words. Given a string instead, Python would happily count
its letters, and the score would look plausible.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["check_caption", "check_captions", "check_references"]


def check_caption(caption: Sequence[str], image: int) -> None:
    """Reject anything but a list or tuple of strings.

    Args:
        caption: what should be a caption.
        image: number of its image, for the message.

    Raises:
        ValueError: if `caption` is anything else.
    """
    if not isinstance(caption, list | tuple) or not all(
        isinstance(word, str) for word in caption
    ):
        raise ValueError(
            f"image {image}: expected a caption as a list of words, got "
            f"{caption!r}"
        )


def check_references(references: Sequence) -> None:
    """Reject references in which an image lacks captions.

    Raises:
        ValueError: if there are no images, if an image has no reference, or as
            `check_caption`.
    """
    if len(references) == 0:
        raise ValueError("no images to score")
    for image, captions in enumerate(references):
        if not isinstance(captions, list | tuple) or not captions:
            raise ValueError(
                f"image {image}: expected at least one reference, in a list, "
                f"got {captions!r}"
            )
        for caption in captions:
            check_caption(caption, image)


def check_captions(references: Sequence, hypotheses: Sequence) -> None:
    """Reject references and hypotheses that can't be scored together.

    Raises:
        ValueError: if their numbers of images differ, or as `check_references`
            and `check_caption`.
    """
    if len(references) != len(hypotheses):
        raise ValueError(
            f"references for {len(references)} images, "
            f"but {len(hypotheses)} hypotheses"
        )
    check_references(references)
    for image, hypothesis in enumerate(hypotheses):
        check_caption(hypothesis, image)
