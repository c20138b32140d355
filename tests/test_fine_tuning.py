"""Fine-tuning the last stages from what the first ones left: the same as from the images."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from captionlib.config import ModelConfig
from captionlib.data import Vocabulary
from captionlib.encoder import Encoder
from captionlib.engine.features import cache_features
from captionlib.engine.fine_tuning import (
    HalfEncoded,
    first_stages,
    free_last_stages,
    stages,
)
from captionlib.io.files import InputError
from tests.test_encoder import random_images, write_split

SMALL = {"attention_dim": 5, "embed_dim": 6, "decoder_dim": 7, "dropout": 0.0}
WORDS = Vocabulary.build([["a", "dog"]] * 5, 1)


@pytest.fixture(
    params=[("tf_efficientnet_lite0", None, 3), ("resnet18", 3, 1)],
    ids=lambda p: p[0],
)
def halfway(request):
    """A model, and how many of its encoder's stages are to be fine-tuned."""
    backbone, grid_size, last = request.param
    torch.manual_seed(0)
    encoder = Encoder(backbone, grid_size=grid_size, pretrained=False)
    for module in encoder.modules():
        if isinstance(
            module, torch.nn.BatchNorm2d
        ):  # unlike each other's, or an order of stages
            module.running_mean.normal_(0, 0.1)  # could go wrong unseen
            module.running_var.uniform_(0.5, 1.5)
    return HalfEncoded(
        ModelConfig(backbone, grid_size, **SMALL), WORDS, encoder
    ).eval(), last


def test_stages_in_a_row_are_the_network(halfway):
    model, _ = halfway
    images = torch.randn(2, 3, 64, 96)
    grid = images
    for stage in stages(model.encoder):
        grid = stage(grid)
    expected = model.encoder(images)
    found = model.encoder.resize(grid).permute(0, 2, 3, 1)
    assert torch.allclose(
        found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item()
    )


def test_the_last_stages_go_on_where_the_first_ones_stopped(halfway, tmp_path):
    model, last = halfway
    images = random_images(2)
    path = write_split(tmp_path, images)
    features = cache_features(
        first_stages(model.encoder, last),
        path,
        tmp_path / "f.hdf5",
        progress=False,
    )
    expected = model.encode(torch.from_numpy(images)).flatten(1, 2)
    model.last = last
    found = model.encode(torch.from_numpy(features[:]))
    assert features.shape[2] != expected.shape[2]
    assert torch.allclose(
        found, expected, rtol=1e-2, atol=1e-2 * expected.abs().max().item()
    )
    whole = cache_features(
        model.encoder, path, tmp_path / "f.hdf5", progress=False
    )
    assert whole.shape[1:] == expected.shape[1:]  # not taken for the same file


def test_gradients_are_those_of_training_from_images(halfway):
    model, last = halfway
    free_last_stages(model, last)
    images = torch.from_numpy(random_images(2, side=64))
    captions, lengths = torch.tensor([[3, 1, 2, 4]] * 2), torch.tensor([4, 4])

    def gradients(given):
        model.zero_grad()
        model(given, captions, lengths).logits.data.square().mean().backward()
        return {
            n: w.grad.clone()
            for n, w in model.named_parameters()
            if w.grad is not None
        }

    expected = gradients(images)
    with torch.no_grad():
        half = first_stages(model.encoder, last)(
            model.encoder.normalise(images)
        ).flatten(1, 2)
    model.last = last
    found = gradients(half)
    free = {
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    assert free == set(expected) == set(found)
    assert any(name.startswith("encoder.") for name in free)
    for name, gradient in found.items():
        scale = expected[name].abs().max().item()
        assert torch.allclose(
            gradient, expected[name], rtol=1e-3, atol=1e-3 * scale
        ), name


def test_a_fine_tuned_model_is_loaded_with_its_encoder(halfway, tmp_path):
    model, last = halfway
    free_last_stages(model, last)
    with torch.no_grad():
        for stage in stages(model.encoder)[-last:]:
            for weight in stage.parameters():
                weight.mul_(1.1)
    model.save(tmp_path / "model")
    images = torch.from_numpy(random_images(2, side=64))
    loaded = HalfEncoded.load(tmp_path / "model")
    assert torch.equal(loaded.encode(images), model.encode(images))


def test_a_network_that_is_no_row_of_stages_is_refused():
    encoder = Encoder("tf_efficientnet_lite0", grid_size=None, pretrained=False)
    del encoder.trunk.blocks
    with pytest.raises(InputError, match="not a sequence of stages"):
        stages(encoder)


def test_the_last_three_stages_of_the_captioner_hold_much_and_cost_little():
    """Three quarters of the weights and a third of the work, as the captioner's page has it."""
    encoder = Encoder(
        "tf_efficientnet_lite2", image_size=288, pretrained=False
    ).eval()
    rows = [
        sum(p.numel() for p in stage.parameters()) for stage in stages(encoder)
    ]
    assert 0.7 < sum(rows[-3:]) / sum(rows) < 0.8

    def work(network) -> int:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 288, 288))
        return counter.get_total_flops()

    assert 0.3 < 1 - work(first_stages(encoder, 3)) / work(encoder) < 0.37
