"""A recipe: all settings of a training run, in one or more stages."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from captionlib.config.model import ModelConfig
from captionlib.config.search import DecodingConfig
from captionlib.config.settings import Settings, setting, settings_of
from captionlib.config.train import EngineConfig

__all__ = ["Recipe", "ViewConfig"]


@dataclass(frozen=True)
class ViewConfig(Settings):
    """The views of images in training, the same in all stages."""

    cache_features: bool = setting(
        True, "encode each image once, while the encoder is frozen"
    )
    mirrored: bool = setting(False, "mirror training images at random")
    crops: bool = setting(
        False,
        "crop training images at random, to 84 to 97% per side",
    )
    last_stages: int = setting(
        0,
        "fine-tune only this many of the encoder's last stages, and cache the "
        "grids before them; 0: as in chapter 02",
        at_least=0,
    )
    validation_beam_size: int = setting(
        1,
        "beam size when choosing the best epoch; 1 is greedy search",
        at_least=1,
        at_most=10_000,
    )


@dataclass(frozen=True)
class Recipe(ViewConfig):
    """Settings by field name; those left out keep their defaults.

    Attributes:
        name: the name of its file, without the extension.
        about: the reasons for its settings, one per line.
        scenes: settings of `ScenesConfig`, if the toy world is its data.
        data: settings of `DataConfig`, and `dataset`, the name of the data set
            that the recipe is for.
        model: settings of `ModelConfig`.
        stages: settings of `EngineConfig`; each stage starts from the captioner
            of the one before.
        search: settings of `DecodingConfig`, stored with the captioner.
    """

    name: str = ""
    about: list[str] = field(default_factory=list)
    scenes: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    model: dict = field(default_factory=dict)
    stages: list[dict] = field(default_factory=lambda: [{}])
    search: dict = field(default_factory=dict)

    def overridden(self, settings: dict) -> Recipe:
        """A copy with some settings replaced, in every stage.

        Args:
            settings: values by field name, of `ModelConfig`, `EngineConfig`,
                `DecodingConfig` and `ViewConfig`.

        Raises:
            TypeError: if a name is unknown.
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
        """The content of a recipe's file."""
        return asdict(self)
