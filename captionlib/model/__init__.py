"""A complete captioner: encoder, decoder and vocabulary, saved and loaded."""

from captionlib.model.caption_model import CaptionModel
from captionlib.model.ensemble import CaptionEnsemble

__all__ = ["CaptionEnsemble", "CaptionModel"]
