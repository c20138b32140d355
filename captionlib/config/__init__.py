"""Settings: frozen, torch-free dataclasses, the single home of all defaults."""

from captionlib.config.data import (
    DataConfig,
    ReadingConfig,
    SkippingConfig,
    SplitConfig,
    WordsConfig,
)
from captionlib.config.model import ModelConfig
from captionlib.config.recipe import Recipe, ViewConfig
from captionlib.config.run import CaptionConfig, ExportConfig, RunConfig
from captionlib.config.scenes import ScenesConfig
from captionlib.config.search import DecodingConfig, SearchConfig
from captionlib.config.settings import Settings, setting
from captionlib.config.train import EngineConfig, TrainConfig

__all__ = [
    "CaptionConfig",
    "DataConfig",
    "DecodingConfig",
    "EngineConfig",
    "ExportConfig",
    "ModelConfig",
    "ReadingConfig",
    "Recipe",
    "RunConfig",
    "ScenesConfig",
    "SearchConfig",
    "Settings",
    "SkippingConfig",
    "SplitConfig",
    "TrainConfig",
    "ViewConfig",
    "WordsConfig",
    "setting",
]
