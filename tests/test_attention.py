"""Properties of the attention layer."""

import pytest
import torch
from torch.testing import assert_close

from captionlib.attention import Attention

B, P, D, H, A = 3, 7, 11, 5, 13  # distinct primes: a mixed-up axis can't pass


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Attention(D, H, A)


@pytest.fixture
def encoder_out():
    return torch.randn(B, P, D, generator=torch.Generator().manual_seed(1))


def hidden(rows):
    return torch.randn(rows, H, generator=torch.Generator().manual_seed(2))


def test_weights_are_a_distribution_over_pixels(layer, encoder_out):
    context, alpha = layer(encoder_out, hidden(B))
    assert context.shape == (B, D) and alpha.shape == (B, P)
    assert (alpha >= 0).all()
    assert_close(alpha.sum(dim=1), torch.ones(B))


def test_the_equations_written_out_pixel_by_pixel(layer, encoder_out):
    states = hidden(B)
    context, alpha = layer(encoder_out, states)
    for b in range(B):
        scores = torch.stack(
            [
                layer.full_att.weight[0]
                @ torch.clamp(
                    layer.encoder_att(pixel) + layer.decoder_att(states[b]),
                    min=0,
                )
                for pixel in encoder_out[b]
            ]
        )
        weights = scores.exp() / scores.exp().sum()  # full_att's bias cancels
        assert_close(alpha[b], weights)
        assert_close(
            context[b],
            sum(w * a for w, a in zip(weights, encoder_out[b], strict=True)),
        )


def test_a_ready_projection_changes_nothing(layer, encoder_out):
    states = hidden(B)
    assert_close(
        layer(encoder_out, states, layer.project(encoder_out)),
        layer(encoder_out, states),
    )


def test_states_that_share_an_image_share_its_grid(layer, encoder_out):
    states = hidden(4 * B)
    shared = layer(encoder_out, states)
    copied = layer(encoder_out.repeat_interleave(4, dim=0), states)
    assert_close(shared, copied)


def test_moving_the_pixels_moves_the_weights_and_keeps_the_context(
    layer, encoder_out
):
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    context, alpha = layer(encoder_out, hidden(B))
    moved_context, moved_alpha = layer(encoder_out[:, order], hidden(B))
    assert_close(moved_alpha, alpha[:, order])
    assert_close(moved_context, context)


def test_every_weight_gets_a_gradient(layer, encoder_out):
    context, _ = layer(encoder_out, hidden(B))
    context.square().sum().backward()
    for name, weight in layer.named_parameters():
        if (
            name != "full_att.bias"
        ):  # adds the same to every score, so softmax ignores it
            assert weight.grad.abs().sum() > 0, name


def test_weights_sum_to_one_under_bfloat16(layer, encoder_out):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, alpha = layer(encoder_out, hidden(B))
    assert alpha.dtype == torch.float32
    assert_close(alpha.sum(dim=1), torch.ones(B))


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_states_must_come_in_equal_numbers_an_image(layer, encoder_out, rows):
    with pytest.raises(ValueError, match=f"multiple of 3 states, got {rows}"):
        layer(encoder_out, hidden(rows))


@pytest.mark.parametrize("k", [1, 3])
def test_inference_in_blocks_gives_what_training_gives(k):
    """Large enough for several blocks of images, the last of them smaller than the others."""
    torch.manual_seed(0)
    layer = Attention(4, 6, 2000)
    encoder_out, hidden = torch.randn(5, 60, 4), torch.randn(5 * k, 6)
    expected = layer(encoder_out, hidden)
    with torch.inference_mode():
        torch.testing.assert_close(layer(encoder_out, hidden), expected)
