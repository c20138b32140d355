"""`make toy`: train the toy captioner that chapters start from.

It takes a few minutes, by the recipe in captionlib/assets/recipes/toy.json:
scenes, files, features, training, scores. The result is captionlib/assets/toy.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from captionlib.engine import evaluate_split, train_recipe
from captionlib.engine.recipes import read_recipe
from captionlib.io.files import ASSETS
from captionlib.model import CaptionModel

TO = ASSETS / "toy"


def main() -> None:
    """Train in a temporary folder, and keep the model."""
    with tempfile.TemporaryDirectory() as name:
        trained = train_recipe("toy", to=name)
        scenes = Path(name) / "scenes"
        scores = evaluate_split(
            scenes / "dataset_scenes.json",
            scenes / "images",
            "val",
            model=str(trained.best),
        ).scores
        del scores["intervals"]
        best = CaptionModel.load(trained.best)
        about = {"data": "scenes", "split": "val"} | read_recipe("toy").scenes
        best.metrics["validation"] = scores | about
        best.save(TO, numbers="float16")
        size = sum(file.stat().st_size for file in TO.iterdir())
        print(f"{TO.name}: {size / 1e6:.2f} MB, BLEU-4 {scores['bleu4']:.1f}")


if __name__ == "__main__":
    main()
