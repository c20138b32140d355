"""Scheduled sampling: the ramps, and what is fed to the decoder at both ends of them."""

import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from captionlib.config import EngineConfig
from captionlib.engine.batches import make_loader
from captionlib.engine.objectives import teacher_forcing
from captionlib.engine.scheduled_sampling import (
    feed_own_words,
    own_word_share,
    scheduled_sampling,
)
from captionlib.model import CaptionModel
from tests.small_training import (
    CONFIG,
    SETTINGS,
    FewFeatures,
    assert_same_weights,
    make_model,
    run,
)

RAMPS = ("linear", "exponential", "inverse_sigmoid")


@pytest.fixture
def batch():
    images, captions, lengths = next(iter(make_loader(FewFeatures(), SETTINGS)))
    return images, captions.flatten(0, 1), lengths.flatten()


@pytest.mark.parametrize("ramp", RAMPS)
def test_a_ramp_climbs_from_nothing_to_the_share_asked_for(ramp):
    config = EngineConfig(own_words=0.4, own_words_ramp=ramp)
    shares = [own_word_share(config, step / 100) for step in range(101)]
    assert shares[0] == 0 and shares[-1] == pytest.approx(0.4)
    assert shares == sorted(shares)
    assert own_word_share(EngineConfig(own_words_ramp=ramp), 0.7) == 0


def test_ramps_have_the_papers_shapes():
    shares = {}
    for ramp in RAMPS:
        config = EngineConfig(own_words=1.0, own_words_ramp=ramp)
        shares[ramp] = [
            own_word_share(config, quarter / 4) for quarter in range(5)
        ]
    assert shares["linear"] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    # k^i: in equal steps the true words become fewer by one factor, here to e^-5 of what they were.
    true = [1 - share * (1 - math.exp(-5)) for share in shares["exponential"]]
    factors = [
        after / before for before, after in zip(true, true[1:], strict=False)
    ]
    assert factors == pytest.approx([math.exp(-5 / 4)] * 4)
    # k / (k + e^(i/k)) is the logistic curve, turned over; here from 5 to -5, then stretched.
    curve = torch.tensor([-5, -2.5, 0, 2.5, 5]).sigmoid()
    expected = (curve - curve[0]) / (curve[-1] - curve[0])
    assert shares["inverse_sigmoid"] == pytest.approx(
        expected.tolist(), abs=1e-6
    )


@pytest.mark.parametrize("mistake", [{"own_words": 1.1}, {"own_words": -0.1}])
def test_a_share_is_a_probability(mistake):
    with pytest.raises(
        ValueError, match="own_words must be at least 0 and at most 1"
    ):
        EngineConfig(**mistake)
    with pytest.raises(
        ValueError, match="own_words_ramp must be one of linear"
    ):
        EngineConfig(own_words_ramp="steep")


def test_without_own_words_it_is_teacher_forcing_to_the_bit(batch, tmp_path):
    models = [make_model(), make_model()]
    for model, objective in zip(
        models, (teacher_forcing, scheduled_sampling), strict=True
    ):
        torch.manual_seed(5)  # the same units drop out
        objective(model.train(), *batch, SETTINGS, progress=1.0)[
            0
        ].total.backward()
    for one, other in zip(
        *(model.decoder.parameters() for model in models), strict=True
    ):
        assert torch.equal(one.grad, other.grad)
    settings = dataclasses.replace(SETTINGS, epochs=1)
    one, _ = run(tmp_path / "one", settings)
    other, _ = run(tmp_path / "other", settings, objective=scheduled_sampling)
    assert_same_weights(one, other)


def test_all_own_words_are_what_a_greedy_writer_writes(batch):
    images, captions, _ = batch
    model = make_model().eval()
    fed = feed_own_words(
        model.decoder, model.encode(images), captions, share=1.0
    )
    state = model.decoder.begin(model.encode(images[1:2]))
    words, written = captions[2:3, 0], []
    for _ in range(captions.shape[1] - 1):
        logits, _, state = model.decoder.step(words, state)
        words = logits.argmax(dim=1)
        written.append(words)
    assert torch.equal(fed[2, 1:], torch.cat(written))
    assert torch.equal(fed[:, 0], captions[:, 0])


def test_words_are_replaced_as_often_as_asked(batch):
    images, captions, _ = batch
    model = make_model().eval()
    captions = torch.full(
        (len(captions), 400), 1
    )  # a word that the decoder, untrained, won't say
    encoder_out = model.encode(images)
    assert not (
        feed_own_words(model.decoder, encoder_out, captions, 1.0)[:, 1:] == 1
    ).any()
    replaced = (
        feed_own_words(model.decoder, encoder_out, captions, 0.3)[:, 1:] != 1
    )
    assert 0.25 < replaced.float().mean() < 0.35
    assert torch.equal(
        feed_own_words(model.decoder, encoder_out, captions, 0.0), captions
    )


def test_the_true_words_are_asked_for_and_the_fed_ones_read(batch):
    images, captions, lengths = batch
    model = make_model().eval()
    config = dataclasses.replace(SETTINGS, own_words=1.0, alpha_c=0.0)
    loss, words = scheduled_sampling(
        model, images, captions, lengths, config, progress=1.0
    )
    encoder_out = model.encode(images)
    fed = feed_own_words(model.decoder, encoder_out, captions, 1.0)
    output = model.decoder(encoder_out, fed, lengths)
    assert words == int((lengths - 1).sum())
    plain = model.decoder(encoder_out, captions, lengths)
    assert_close(
        loss.total,
        torch.nn.functional.cross_entropy(
            output.logits.data, plain.targets.data
        ),
    )
    loss.total.backward()
    assert model.decoder.fc.weight.grad.abs().sum() > 0


def test_training_with_own_words_learns(tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=8, own_words=0.5, seed=2)
    _, history = run(tmp_path, settings, objective=scheduled_sampling)
    assert history[-1]["nats"] < 0.98 * history[0]["nats"]
    assert CaptionModel.load(tmp_path).config == CONFIG
