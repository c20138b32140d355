"""Settings: one frozen, torch-free dataclass per concern, the only home of every default."""

from captionlib.config.data import DataConfig
from captionlib.config.model import ModelConfig
from captionlib.config.search import DecodingConfig, SearchConfig
from captionlib.config.settings import Settings, setting
from captionlib.config.train import EngineConfig, TrainConfig

__all__ = [
    "DataConfig",
    "DecodingConfig",
    "EngineConfig",
    "ModelConfig",
    "SearchConfig",
    "Settings",
    "TrainConfig",
    "setting",
]
