"""Training on whole captions: what is compared, what is minimised, and that it learns."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import Dataset

from captionlib.config import EngineConfig, ModelConfig
from captionlib.data import Vocabulary
from captionlib.engine.batches import make_loader
from captionlib.engine.loop import train
from captionlib.engine.self_critical import SelfCritical, advantages
from captionlib.metrics import cider_d_scores
from captionlib.model import CaptionModel

WORDS = "a dog cat runs sits on the red mat".split()
SENTENCES = [
    ["a dog runs", "the dog runs", "a red dog runs"],
    ["a cat sits on the mat", "the cat sits", "a cat on a mat"],
    ["the red mat", "a red mat", "a mat"],
    ["a dog sits on the mat", "the dog sits", "a dog on a mat"],
]
SETTINGS = EngineConfig(
    epochs=2, batch_size=4, learning_rate=1e-2, schedule="one_cycle"
)


class Corpus(Dataset):
    """Four images' features with three captions each."""

    def __init__(self):
        self.vocabulary = Vocabulary.build([WORDS], min_word_freq=1)
        self.features = torch.randn(
            4, 5, 1280, generator=torch.Generator().manual_seed(0)
        )
        encoded = [
            [self.vocabulary.encode(text.split(), 6) for text in texts]
            for texts in SENTENCES
        ]
        self.captions = torch.tensor(encoded)
        self.lengths = torch.tensor(
            [[len(t.split()) + 2 for t in texts] for texts in SENTENCES]
        )

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.features[i], self.captions[i], self.lengths[i]


@pytest.fixture
def corpus():
    return Corpus()


def make(corpus, **options):
    torch.manual_seed(0)
    config = ModelConfig(
        attention_dim=8, embed_dim=8, decoder_dim=16, dropout=0.0
    )
    model = CaptionModel(config, corpus.vocabulary)
    options = {"samples": 4, "max_words": 6} | options
    return model, SelfCritical(
        corpus.captions, corpus.lengths, corpus.vocabulary, **options
    )


def batch(corpus, *numbers):
    items = [corpus[i] for i in numbers]
    features, captions, lengths = (
        torch.stack(part) for part in zip(*items, strict=True)
    )
    return features, captions.flatten(0, 1), lengths.flatten()


def test_advantage_is_the_excess_over_the_mean_of_the_others():
    scores = np.random.default_rng(0).random((3, 5))
    expected = [
        [row[i] - np.delete(row, i).mean() for i in range(5)] for row in scores
    ]
    np.testing.assert_allclose(advantages(scores), expected)
    np.testing.assert_allclose(advantages(scores).sum(axis=1), 0, atol=1e-12)


def test_captions_are_scored_against_their_images_references(
    corpus, monkeypatch
):
    model, objective = make(corpus)
    v = corpus.vocabulary
    texts = [
        "a dog runs",
        "a mat",
        "the cat",
        "a dog runs",
        "a cat sits",
        "mat",
        "a",
        "the dog",
    ]
    written = [
        v.encode(text.split(), 6)[: len(text.split()) + 2] for text in texts
    ]
    monkeypatch.setattr(objective, "_write", lambda *_: written)
    loss, words = objective(model, *batch(corpus, 3, 1), SETTINGS)
    assert words == sum(len(ids) - 1 for ids in written)

    # By hand: every image's references in full, the captions of images 3 and 1 one at a time.
    references = [
        [[*text.split(), "<end>"] for text in texts] for texts in SENTENCES
    ]
    scores = np.empty((2, 4))
    for k, text in enumerate(texts):
        image = (3, 1)[k // 4]
        hypotheses = [["x"]] * 4
        hypotheses[image] = [*text.split(), "<end>"]
        scores[k // 4, k % 4] = cider_d_scores(references, hypotheses)[image]
    assert_close(loss.reward.item(), scores.mean())

    total, nats = 0.0, 0.0
    for k, (ids, gain) in enumerate(
        zip(written, advantages(scores).ravel() / 100, strict=True)
    ):
        features = corpus.features[(3, 1)[k // 4]][None]
        output = model(features, torch.tensor([ids]), torch.tensor([len(ids)]))
        logits = output.logits.data.clone()
        logits[:, [v.start, v.pad, v.unk]] = -torch.inf  # never drawn
        log_probs = logits.log_softmax(dim=1)
        taken = log_probs[torch.arange(len(ids) - 1), ids[1:]].sum()
        total, nats = total - gain * taken, nats - taken
    assert_close(loss.total, (total / words).float(), atol=1e-5, rtol=1e-4)
    assert_close(loss.nats, nats.detach() / words, atol=1e-5, rtol=1e-4)


def test_captions_come_from_the_model_and_hold_no_unknown_word(corpus):
    model, objective = make(corpus, samples=200, max_words=3)
    model.eval()
    v = corpus.vocabulary
    samples = objective._write(model, batch(corpus, 0)[0], SETTINGS)
    assert len(samples) == 200
    for ids in samples:
        assert ids[0] == v.start and not {v.unk, v.pad, v.start} & set(ids[1:])
        assert v.end not in ids[:-1] and len(ids) <= 5
        assert (
            ids[-1] == v.end or len(ids) == 4
        )  # cut off: three words and no end
    firsts = np.bincount([ids[1] for ids in samples], minlength=len(v)) / 200
    with torch.no_grad():
        model.eval()
        state = model.decoder.begin(model.encode(corpus.features[:1]))
        logits = model.decoder.step(torch.tensor([v.start]), state)[0][0]
    logits[[v.start, v.pad, v.unk]] = -torch.inf
    # The largest of 12 gaps between shares of 200 draws and their probabilities
    np.testing.assert_allclose(firsts, logits.softmax(dim=0).numpy(), atol=0.12)


def test_one_sample_has_nothing_to_be_compared_with(corpus):
    with pytest.raises(ValueError, match="samples"):
        make(corpus, samples=1)


def test_it_learns_to_score(corpus):
    model, objective = make(corpus, samples=8)
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=1e-2)
    scores = []
    for _ in range(40):
        loss, _ = objective(model, *batch(corpus, 0, 1, 2, 3), SETTINGS)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        scores.append(loss.reward.item())
    assert np.mean(scores[-5:]) > 1.3 * np.mean(scores[:5])


def test_training_takes_it_for_its_objective(corpus, tmp_path):
    model, objective = make(corpus)
    history = train(
        model,
        make_loader(corpus, SETTINGS),
        lambda model: {"bleu4": 0.0},
        SETTINGS,
        tmp_path,
        objective=objective,
        progress=False,
    )
    assert len(history) == 2
    for row in history:
        assert row.keys() >= {"loss", "nats", "reward"} and "penalty" not in row
