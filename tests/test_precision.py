"""bf16 auto: both forms of a step are timed, the faster is taken, and nothing else remains."""

import pytest
import torch

from captionlib.config import EngineConfig
from captionlib.engine import precision
from captionlib.engine.batches import make_loader
from captionlib.engine.objectives import teacher_forcing
from captionlib.engine.precision import StepTimes, time_steps
from tests.small_training import SETTINGS, FewFeatures, make_model

CONFIG = EngineConfig(
    batch_size=SETTINGS.batch_size, epochs=SETTINGS.epochs, bf16="auto"
)


def some_batches():
    return list(make_loader(FewFeatures(), CONFIG))[:2]


def test_the_faster_form_is_taken():
    slow, fast = StepTimes(0.5, 0.7, 8), StepTimes(0.7, 0.5, 8)
    assert (slow.bf16, fast.bf16) == (False, True)
    assert str(slow).startswith("a step of 8 images takes 0.5 s in float32")
    assert str(slow).endswith("0.7 s in bfloat16: training in float32")
    assert str(fast).endswith("0.5 s in bfloat16: training in bfloat16")
    assert "\n" not in str(slow)


def test_forms_take_turns_and_the_first_turn_does_not_count(monkeypatch):
    forms, clock = [], [0.0]

    def objective(model, images, captions, lengths, config):
        forms.append(config.bf16)
        # The first turn of a few images, and the first of whole batches.
        warm_up = 100.0 if len(forms) in (1, 2, 5, 6) else 0.0
        clock[0] += (3.0 if config.bf16 else 2.0) + warm_up
        return teacher_forcing(model, images, captions, lengths, SETTINGS)

    monkeypatch.setattr(precision, "_clock", lambda device: clock[0])
    times = time_steps(
        make_model(), some_batches(), objective, CONFIG, rounds=3
    )
    assert forms == [False, True] * (2 + 4)
    assert times == StepTimes(2.0, 3.0, CONFIG.batch_size)


@pytest.mark.parametrize("factor", [3.5, 4.5])
def test_a_few_images_settle_it_where_bfloat16_is_far_slower(
    monkeypatch, factor
):
    seen, clock = [], [0.0]

    def objective(model, images, captions, lengths, config):
        seen.append((len(images), len(captions), len(lengths)))
        clock[0] += len(images) * (factor if config.bf16 else 1.0)
        return teacher_forcing(model, images, captions, lengths, SETTINGS)

    monkeypatch.setattr(precision, "_clock", lambda device: clock[0])
    batches = [[torch.cat([part] * 8) for part in some_batches()[0]]]
    B, n = batches[0][1].shape[:2]
    times = time_steps(make_model(), batches, objective, CONFIG, rounds=2)
    few = (B // 8, B // 8 * n, B // 8 * n)
    whole = [(B, B * n, B * n)] * 2 * 3
    assert seen == [few] * 4 + (whole if factor < 4 else [])
    expected = B if factor < 4 else B // 8
    assert times == StepTimes(expected, factor * expected, expected)


def test_measuring_leaves_everything_as_it_was():
    model = make_model()
    model.decoder.eval()
    model.register_buffer("counted", torch.zeros(2))
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    batches = some_batches()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)

    def objective(model, *batch):
        model.counted += 1
        torch.rand(5)
        return teacher_forcing(model, *batch)

    times = time_steps(model, batches, objective, CONFIG, rounds=1)
    assert torch.equal(torch.rand(4), expected)
    assert min(times.float32, times.bfloat16) > 0
    assert [module.training for module in model.modules()] == modes
    assert all(weight.grad is None for weight in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_what_goes_wrong_while_measuring_leaves_no_trace_either():
    model = make_model().eval()

    def objective(*batch):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        time_steps(model, some_batches(), objective, CONFIG)
    assert not model.training
