"""Properties of the attention layer."""

import pytest
import torch
from original import Attention as OriginalAttention
from torch.testing import assert_close

from captionlib.attention import Attention
from captionlib.model import attention as blockwise

B, P, D, H, A = 3, 7, 11, 5, 13  # distinct primes: a mixed-up axis can't pass


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Attention(D, H, A)


@pytest.fixture
def grid():
    return torch.randn(B, P, D, generator=torch.Generator().manual_seed(1))


def hidden(rows):
    return torch.randn(rows, H, generator=torch.Generator().manual_seed(2))


def look(layer, states, grid):
    return layer(states, layer.keys(grid), grid)


@pytest.mark.parametrize("k", [1, 4])
def test_weights_are_a_distribution_over_grid_cells(layer, grid, k):
    context, alpha = look(layer, hidden(k * B), grid)
    assert context.shape == (k * B, D) and alpha.shape == (k * B, P)
    assert (alpha >= 0).all()
    assert_close(alpha.sum(dim=1), torch.ones(k * B))


def test_the_equations_written_out_cell_by_cell(layer, grid):
    states = hidden(B)
    context, alpha = look(layer, states, grid)
    for b in range(B):
        query = layer.decoder_att(states[b])
        scores = torch.stack(
            [
                layer.full_att.weight[0]
                @ torch.clamp(layer.encoder_att(cell) + query, min=0)
                for cell in grid[b]
            ]
        )
        weights = scores.exp() / scores.exp().sum()  # full_att's bias cancels
        assert_close(alpha[b], weights)
        assert_close(
            context[b],
            sum(w * a for w, a in zip(weights, grid[b], strict=True)),
        )


def test_equals_the_original_with_equal_weights(layer, grid):
    original = OriginalAttention(D, H, A)
    original.load_state_dict(layer.state_dict())
    assert_close(
        look(layer, hidden(B), grid),
        original(grid, hidden(B)),
        atol=1e-5,
        rtol=0,
    )


def test_k_states_an_image_get_what_each_gets_alone(layer, grid):
    states = hidden(4 * B)
    context, alpha = look(layer, states, grid)
    for row in range(4 * B):
        image = grid[row // 4 : row // 4 + 1]
        alone = look(layer, states[row : row + 1], image)
        assert_close((context[row : row + 1], alpha[row : row + 1]), alone)


def test_equal_scores_give_the_mean(layer, grid):
    torch.nn.init.zeros_(layer.full_att.weight)
    context, alpha = look(layer, hidden(B), grid)
    assert_close(alpha, torch.full((B, P), 1 / P))
    assert_close(context, grid.mean(dim=1))


def test_keys_choose_and_values_are_averaged(layer, grid):
    keys, values = layer.keys(grid), torch.randn(B, P, 2)
    context, alpha = layer(hidden(B), keys, values)
    assert_close(alpha, look(layer, hidden(B), grid)[1])
    assert_close(context, torch.einsum("bp,bpd->bd", alpha, values))


def test_moving_the_cells_moves_the_weights_and_keeps_the_context(layer, grid):
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    context, alpha = look(layer, hidden(B), grid)
    moved_context, moved_alpha = look(layer, hidden(B), grid[:, order])
    assert_close(moved_alpha, alpha[:, order])
    assert_close(moved_context, context)


def test_every_weight_gets_a_gradient(layer, grid):
    context, _ = look(layer, hidden(B), grid)
    context.square().sum().backward()
    for name, weight in layer.named_parameters():
        if (
            name != "full_att.bias"
        ):  # the same for every score: softmax ignores it
            assert weight.grad.abs().sum() > 0, name


def test_weights_sum_to_one_under_bfloat16(layer, grid):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, alpha = look(layer, hidden(B), grid)
    assert alpha.dtype == torch.float32
    assert_close(alpha.sum(dim=1), torch.ones(B))


def test_a_bfloat16_layer_weighs_in_float32(layer, grid):
    context, alpha = look(
        layer.bfloat16(), hidden(B).bfloat16(), grid.bfloat16()
    )
    assert context.dtype == torch.bfloat16 and alpha.dtype == torch.float32
    assert_close(alpha.sum(dim=1), torch.ones(B))


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_states_must_come_in_equal_numbers_an_image(layer, grid, rows):
    with pytest.raises(ValueError, match=f"multiple of 3 states, got {rows}"):
        look(layer, hidden(rows), grid)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("images", [1, 2])
def test_blocks_give_what_the_plain_form_gives(
    layer, grid, monkeypatch, n, images
):
    monkeypatch.setattr(blockwise, "BLOCK", images * n * P * A)
    blocks, states = blockwise.BlockwiseAttention(layer), hidden(n * B)
    seen = []
    layer.full_att.register_forward_hook(
        lambda _, inputs, scores: seen.append(len(inputs[0]))
    )
    with torch.inference_mode():
        found = look(blocks, states, grid)
    assert max(seen) == images and sum(seen) == B
    for got, wanted in zip(found, look(layer, states, grid), strict=True):
        assert_close(got, wanted)
    look(blocks, states, grid)[0].sum().backward()  # trains as the plain one
    assert layer.decoder_att.weight.grad.abs().sum() > 0


def test_blocks_refuse_what_the_plain_form_refuses(layer, grid):
    with torch.inference_mode(), pytest.raises(ValueError, match="multiple"):
        look(blockwise.BlockwiseAttention(layer), hidden(B + 1), grid)
