"""A recipe: all settings of a training, in one or more stages."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from captionlib.config.model import ModelConfig
from captionlib.config.search import DecodingConfig
from captionlib.config.settings import Settings, setting, settings_of
from captionlib.config.train import EngineConfig

__all__ = ["Recipe", "ViewConfig"]


@dataclass(frozen=True)
class ViewConfig(Settings):
    """What a training looks at, in all its stages."""

    cache_features: bool = setting(
        True, "encode each image once, while the encoder is frozen"
    )
    mirrored: bool = setting(
        False, "show each training image as it is or mirrored, by chance"
    )
    crops: bool = setting(
        False,
        "show each training image whole or cropped to 84 to 97 % a side, by chance",
    )
    last_stages: int = setting(
        0,
        "keep what comes before this many of the encoder's last stages, run these at every "
        "step, and fine-tune no others; 0: as chapter 02 does",
        at_least=0,
    )
    validation_beam_size: int = setting(
        1, "beam for choosing the best epoch; 1 is greedy search", at_least=1
    )


@dataclass(frozen=True)
class Recipe(ViewConfig):
    """Settings by the names of their fields. What is left out keeps its
    default.

    Attributes:
        name: of its file, without the ending.
        about: the reasons for its numbers, one a line.
        scenes: of `ScenesConfig`, where the toy world is to be drawn as its
            data.
        data: of `DataConfig`, and `dataset`, the name of the data set it is
            meant for.
        model: of `ModelConfig`.
        stages: of `EngineConfig`; each stage begins with the captioner of the
            one before.
        search: of `DecodingConfig`, stored with the captioner.
    """

    name: str = ""
    about: list[str] = field(default_factory=list)
    scenes: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    model: dict = field(default_factory=dict)
    stages: list[dict] = field(default_factory=lambda: [{}])
    search: dict = field(default_factory=dict)

    def overridden(self, settings: dict) -> Recipe:
        """The recipe with other settings, in every stage.

        Args:
            settings: values by the names of fields of `ModelConfig`,
                `EngineConfig`, `DecodingConfig` and `ViewConfig`.

        Raises:
            TypeError: if a name is none of theirs.
        """
        groups = ModelConfig, EngineConfig, DecodingConfig, ViewConfig
        chosen = [
            {
                name: settings[name]
                for name in settings_of(kind)
                if name in settings
            }
            for kind in groups
        ]
        unknown = settings.keys() - {name for group in chosen for name in group}
        if unknown:
            raise TypeError(f"{', '.join(sorted(unknown))}: no such setting")
        model, train, search, views = chosen
        return replace(
            self,
            model=self.model | model,
            stages=[stage | train for stage in self.stages],
            search=self.search | search,
            **views,
        )

    def as_dict(self) -> dict:
        """What a recipe's file holds."""
        return asdict(self)
