"""`make toy`: train the small captioner of the toy world that chapters 06 to 09 start from.

From nothing to captionlib/assets/toy in a few minutes, by the recipe in
captionlib/assets/recipes/toy.json: scenes, files, features, training, scores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from captionlib import cli
from captionlib.engine.recipes import read_recipe
from captionlib.io.files import ASSETS, read_json
from captionlib.model import CaptionModel

TO = ASSETS / "toy"


def main() -> None:
    """Make everything in a temporary folder, and keep the model."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        run(["train", "--recipe", "toy", "--to", name])
        scenes, stored = work / "scenes", work / "result.json"
        data = [
            "--karpathy-json",
            f"{scenes / 'dataset_scenes.json'}",
            "--images",
        ]
        where = [
            "--split",
            "val",
            "--model",
            name,
            "--save-results",
            f"{stored}",
        ]
        run(["evaluate", *data, f"{scenes / 'images'}", *where])

        best = CaptionModel.load(work)
        result = {
            k: v
            for k, v in read_json(stored)["result"].items()
            if k != "intervals"
        }
        about = {"data": "scenes", "split": "val"} | read_recipe("toy").scenes
        best.metrics["validation"] = result | about
        best.save(TO, half=True)
        size = sum(file.stat().st_size for file in TO.iterdir())
        print(f"{TO.name}: {size / 1e6:.2f} MB, BLEU-4 {result['bleu4']:.1f}")


def run(command: list[str]) -> None:
    """A captionlib command; what it says stands for itself."""
    if status := cli.main(command):
        raise SystemExit(status)


if __name__ == "__main__":
    main()
