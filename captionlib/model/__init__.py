"""A complete captioner: encoder, decoder and vocabulary, saved and loaded."""

from captionlib.model.caption_model import CaptionModel

__all__ = ["CaptionModel"]
