"""Our EfficientNet-Lite is timm's: the same names, sizes and numbers."""

import pytest
import torch

from captionlib.io import backbones
from captionlib.io.efficientnet_lite import SCALES, EfficientNetLite, SameConv2d


@pytest.fixture(scope="module", params=SCALES)
def pair(request):
    """Ours and timm's, with the same random weights and statistics."""
    torch.manual_seed(0)
    timms = backbones.timm.create_model(f"tf_efficientnet_{request.param}")
    for name, buffer in timms.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    for name, weight in timms.named_parameters():
        if ".bn" in name or name.startswith("bn"):
            weight.data.uniform_(0.5, 1.5)
    ours = EfficientNetLite(request.param)
    ours.load_state_dict(timms.state_dict())
    return ours.eval(), timms.eval()


def test_names_and_shapes_are_timms_in_timms_order(pair):
    ours, timms = (
        [(n, t.shape) for n, t in m.state_dict().items()] for m in pair
    )
    assert ours == timms


@pytest.mark.parametrize("size", [(64, 64), (97, 131), (33, 50), (224, 160)])
def test_outputs_are_timms(pair, size):
    ours, timms = pair
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        grid = ours.forward_features(images)
        expected = timms.forward_features(images)
        torch.testing.assert_close(grid, expected, rtol=0, atol=1e-6)
        assert expected.std() > 0.1  # something is compared
        torch.testing.assert_close(
            ours(images), timms(images), rtol=1e-5, atol=1e-5
        )
    assert grid.shape[2:] == (-(-size[0] // 32), -(-size[1] // 32))


def test_every_stage_is_timms(pair):
    ours, timms = pair
    with torch.no_grad():
        x = torch.randn(1, 3, 75, 90)
        x = y = ours.bn1(ours.conv_stem(x))
        for stage, expected in zip(ours.blocks, timms.blocks, strict=True):
            x, y = stage(x), expected(y)
            torch.testing.assert_close(x, y, rtol=0, atol=1e-6)


def test_gradients_are_timms(pair):
    images = torch.randn(2, 3, 61, 64)
    found = []
    for model in pair:
        model.zero_grad()
        model.forward_features(images).square().mean().backward()
        found.append([w.grad for w in model.parameters() if w.grad is not None])
    assert len(found[0]) == len(found[1]) > 100
    for ours, timms in zip(*found, strict=True):
        scale = timms.abs().max().item()
        torch.testing.assert_close(ours, timms, rtol=1e-4, atol=1e-5 * scale)


def test_what_fine_tuning_and_normalising_ask_is_timms(pair):
    ours, timms = pair
    keys = ("module", "num_chs", "reduction")
    assert ours.feature_info == [
        {key: stage[key] for key in keys} for stage in timms.feature_info
    ]
    assert backbones.normalisation(ours) == backbones.normalisation(timms)


def test_an_odd_row_of_padding_goes_below_and_right():
    conv = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(conv.weight)
    out = conv(torch.ones(1, 1, 4, 4))[0, 0]
    assert out.tolist() == [[9, 6], [6, 4]]


def test_random_weights_keep_the_size_of_what_passes_through():
    torch.manual_seed(0)
    with torch.no_grad():
        grid = (
            EfficientNetLite()
            .eval()
            .forward_features(torch.randn(1, 3, 64, 64))
        )
    assert 0.1 < grid.std() < 10


def test_a_classifier_of_other_classes():
    model = EfficientNetLite().eval()
    model.reset_classifier(7)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    model.reset_classifier(0)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 1280)
