"""`make toy`: train the small captioner of the toy world that chapters 06 to 09 start from.

From nothing to captionlib/assets/toy in a few minutes: scenes, files, features, training, scores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from captionlib.beam_search import SearchConfig
from captionlib.data import DataConfig, image_file, load_references, prepare
from captionlib.decoder import CaptionModel, ModelConfig
from captionlib.encoder import Encoder, FeatureDataset, cache_features
from captionlib.files import ASSETS
from captionlib.metrics import score
from captionlib.scenes import write_scenes
from captionlib.training import TrainConfig, make_loader, train
from tools.captioner import write_captions

TO = ASSETS / "toy"
SCENES = {"train": 3000, "val": 200, "test": 0, "seed": 0}
DATA = DataConfig(min_word_freq=3, max_len=30)
# The largest sizes that fit two megabytes in half precision.
MODEL = ModelConfig(attention_dim=80, embed_dim=64, decoder_dim=80, dropout=0.2)
TRAINING = TrainConfig(
    epochs=16, batch_size=32, learning_rate=4e-3, schedule="one_cycle", label_smoothing=0.05
)
SEARCH = {"beam_size": 3, "max_words": 30}


def main() -> None:
    """Make everything in a temporary folder, and keep the model."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        karpathy = write_scenes(work / "scenes", **SCENES, progress=True)
        prepare(karpathy, work / "scenes" / "images", work / "data", DATA)
        encoder = Encoder(MODEL.backbone, grid_size=MODEL.grid_size)
        train_features, features = (
            cache_features(encoder, image_file(work / "data", split), work / f"{split}.hdf5")
            for split in ("TRAIN", "VAL")
        )
        _, references = load_references(work / "data", "VAL")
        validation = torch.from_numpy(features[:])

        def evaluate(model: CaptionModel) -> dict[str, float]:
            return score(references, write_captions(model, validation, SearchConfig(beam_size=1)))

        data = FeatureDataset(work / "data", "TRAIN", train_features)
        torch.manual_seed(TRAINING.seed)
        model = CaptionModel(MODEL, data.vocabulary)
        history = train(model, make_loader(data, TRAINING), evaluate, TRAINING, work / "run")
        for row in history:
            print(f"epoch {row['epoch']:>2}   {row['nats']:.3f} nats   BLEU-4 {row['bleu4']:.1f}")

        best = CaptionModel.load(work / "run")
        best.search = SEARCH
        scores = score(references, write_captions(best, validation, SearchConfig(**SEARCH)))
        best.metrics |= {"validation": scores | {"data": "scenes", "split": "val"} | SCENES}
        best.save(TO, half=True)
        size = sum(file.stat().st_size for file in TO.iterdir())
        print(f"{TO.name}: {size / 1e6:.2f} MB, BLEU-4 {scores['bleu4']:.1f} at beam 3")


if __name__ == "__main__":
    main()
