"""A training of a second: eight images' features, a model of a few numbers, scores at will."""

import torch
from torch.utils.data import Dataset

from captionlib.config import EngineConfig, ModelConfig
from captionlib.data import Vocabulary
from captionlib.engine.batches import make_loader
from captionlib.engine.loop import train
from captionlib.model import CaptionModel

CONFIG = ModelConfig(
    attention_dim=13, embed_dim=7, decoder_dim=11, feature_dropout=0.1
)
WORDS = [f"word{i}" for i in range(23)]
SETTINGS = EngineConfig(
    epochs=4, batch_size=3, learning_rate=1e-2, schedule="one_cycle", seed=1
)


class FewFeatures(Dataset):
    """Eight images' features, each with two captions: what FeatureDataset gives, in memory."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.vocabulary = Vocabulary.build([WORDS], min_word_freq=1)
        self.features = torch.randn(8, 6, 1280, generator=generator).half()
        self.captions = torch.randint(1, 20, (8, 2, 9), generator=generator)
        self.lengths = torch.randint(3, 10, (8, 2), generator=generator)

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return self.features[i], self.captions[i], self.lengths[i]


class FewImages(FewFeatures):
    """The same captions, of the images themselves."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.features = torch.randint(
            256, (8, 3, 64, 64), dtype=torch.uint8, generator=generator
        )


def make_model(seed=1):
    torch.manual_seed(seed)
    return CaptionModel(CONFIG, FewFeatures().vocabulary)


def run(
    folder, settings=SETTINGS, scores=lambda epoch: float(epoch), **options
):
    """Train a small model by the engine; `scores` gives epoch n's BLEU-4."""
    model, done = make_model(), []

    def evaluate(model):
        assert not model.training
        done.append(1)
        return {"bleu4": scores(len(done))}

    loader = make_loader(FewFeatures(), settings)
    history = train(
        model, loader, evaluate, settings, folder, progress=False, **options
    )
    return model, history


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def assert_same_weights(one, other):
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name
