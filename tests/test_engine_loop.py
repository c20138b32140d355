"""Properties of the engine's loop: with its extras off it is the plain one, then each extra."""

import dataclasses
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

from captionlib import training as plain
from captionlib.config import EngineConfig
from captionlib.engine.averaging import WeightAverage
from captionlib.engine.batches import Batches, make_loader
from captionlib.engine.loop import train
from captionlib.engine.processes import Processes
from captionlib.io.files import InputError
from captionlib.model import CaptionModel
from tests.small_training import (
    SETTINGS,
    FewFeatures,
    FewImages,
    assert_same_weights,
    make_model,
    run,
)

# The plain loop and this one


@pytest.fixture
def rates():
    """The learning rates of each step that any optimizer takes."""
    steps = []

    def note(optimizer, *_):
        steps.append([group["lr"] for group in optimizer.param_groups])

    hook = register_optimizer_step_pre_hook(note)
    yield steps
    hook.remove()


def train_both(
    folder, settings, dataset, scores, rates, prepare=lambda model: None
):
    """(model, history, rates) of the plain loop, then of the engine's."""
    results = []
    for loop in (plain.train, train):
        model, left = make_model(), iter(scores)
        prepare(model)
        rates.clear()
        data = (
            dataset if loop is plain.train else make_loader(dataset, settings)
        )
        options = {} if loop is plain.train else {"progress": False}
        history = loop(
            model,
            data,
            lambda model, left=left: {"bleu4": next(left)},
            settings,
            folder / loop.__module__,
            **options,
        )
        results.append((model, history, list(rates)))
    return results


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "one_cycle"},
        {"schedule": "plateau", "decay_after": 1, "decay": 0.5},
        {"label_smoothing": 0.1, "weight_decay": 0.1, "max_grad_norm": 0.1},
    ],
)
def test_with_extras_off_it_is_the_plain_loop(tmp_path, rates, changes):
    """Dropout on, batches of three, three and two, two epochs and one more after a bad score."""
    settings = dataclasses.replace(SETTINGS, epochs=3, **changes)
    assert make_model().decoder.dropout.p == 0.5
    (one, told, slow), (two, tells, real) = train_both(
        tmp_path, settings, FewFeatures(), [2.0, 1.0, 3.0], rates
    )
    assert slow == real and len(real) == 9
    assert len({tuple(step) for step in real}) == (
        2 if settings.schedule == "plateau" else 9
    )
    for name, weight in one.state_dict().items():
        other = two.state_dict()[name]
        assert weight.dtype == other.dtype != torch.bfloat16, name
        assert (weight - other).abs().max() <= 1e-6, name
    for row, other in zip(told, tells, strict=True):
        for key in ("epoch", "nats", "bleu4"):
            assert row[key] == pytest.approx(other[key], rel=1e-6)
    before = make_model()
    assert not torch.equal(one.decoder.fc.weight, before.decoder.fc.weight)
    kept = [
        CaptionModel.load(tmp_path / loop.__module__ / "best")
        for loop in (plain.train, train)
    ]
    assert_same_weights(*kept)


def test_with_the_encoder_free_it_is_the_plain_loop_too(tmp_path, rates):
    settings = dataclasses.replace(
        SETTINGS, epochs=2, encoder_learning_rate=1e-3
    )
    images = torch.utils.data.Subset(FewImages(), range(4))
    (one, _, slow), (two, _, real) = train_both(
        tmp_path,
        settings,
        images,
        [1.0, 2.0],
        rates,
        prepare=lambda model: model.fine_tune_encoder(),
    )
    assert slow == real
    assert [encoder / decoder for decoder, encoder in real] == pytest.approx(
        [0.1] * 4
    )
    for name, weight in one.state_dict().items():
        other = two.state_dict()[name].float()
        assert (weight.float() - other).abs().max() <= 1e-6, name


@pytest.mark.parametrize("images, batch_size", [(8, 3), (1201, 32), (5, 9)])
def test_batches_are_the_plain_loader_s(images, batch_size):
    settings = dataclasses.replace(SETTINGS, batch_size=batch_size)
    numbers = torch.arange(images)
    batches = Batches(images, batch_size)
    for epoch in range(2):
        batches.begin(plain.seed_of(settings.seed, epoch))
        loader = plain.epoch_loader(numbers, settings, epoch)
        assert list(batches) == [batch.tolist() for batch in loader]
        assert len(batches) == len(loader)
    if images == 1201:
        assert [len(batch) for batch in batches] == [32] * 37 + [17]


# Settings


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 0},
        {"schedule": "cosine"},
        {"learning_rate": 0.0},
        {"label_smoothing": 1.0},
        {"learning_rate": math.nan},
        {"weight_decay": -0.1},
        {"averaging": 1.0},
    ],
)
def test_settings_are_checked(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        EngineConfig(**setting)


# The loop


def test_training_learns_and_writes_everything_down(tmp_path):
    model, history = run(tmp_path, dataclasses.replace(SETTINGS, epochs=10))
    assert history[-1]["nats"] < 0.97 * history[0]["nats"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    assert_same_weights(
        CaptionModel.load(tmp_path), model
    )  # the last epoch was the best
    metrics = CaptionModel.load(tmp_path / "best").metrics["training"]
    assert metrics["seed"] == 1 and metrics["epoch"] == 10


def test_report_55_90_97_the_same_seed_gives_the_same_weights(tmp_path):
    one, _ = run(tmp_path / "one")
    two, _ = run(tmp_path / "two")
    other, _ = run(tmp_path / "other", dataclasses.replace(SETTINGS, seed=2))
    assert_same_weights(one, two)
    assert not torch.equal(one.decoder.fc.weight, other.decoder.fc.weight)
    stored = json.loads(
        (tmp_path / "one" / "last" / "training.json").read_text()
    )
    assert stored["config"] == dataclasses.asdict(SETTINGS)
    versions = json.loads(
        (tmp_path / "one" / "best" / "config.json").read_text()
    )["versions"]
    assert torch.__version__.startswith(versions["torch"])


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_report_49_61_144_resume_is_exact_and_keeps_the_best(
    tmp_path, averaging
):
    settings = dataclasses.replace(
        SETTINGS, averaging=averaging, weight_decay=0.1
    )
    scores = [5.0, 9.0, 3.0, 4.0]
    unbroken, expected = run(
        tmp_path / "unbroken", settings, lambda epoch: scores[epoch - 1]
    )

    def power_cut(epoch):
        if epoch == 3:
            raise KeyboardInterrupt
        return scores[epoch - 1]

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", settings, power_cut)
    best_before = CaptionModel.load(tmp_path / "cut" / "best").state_dict()
    resumed, history = run(
        tmp_path / "cut", settings, lambda epoch: scores[epoch + 1], resume=True
    )
    assert_same_weights(resumed, unbroken)
    if averaging:
        ends = [
            load_file(tmp_path / name / "last/average.safetensors")
            for name in ("unbroken", "cut")
        ]
        assert ends[0]["updates"] == 12 and ends[0].keys() == ends[1].keys()
        assert all(
            torch.equal(ends[0][name], ends[1][name]) for name in ends[0]
        )
    untimed = [
        {key: value for key, value in row.items() if "seconds" not in key}
        for row in history
    ]
    for row, want in zip(untimed, expected, strict=True):
        assert row == {key: want[key] for key in row}
    best = CaptionModel.load(tmp_path / "cut" / "best")
    assert (
        best.metrics["training"]["epoch"] == 2
    )  # not overwritten by a worse one
    for name, weight in best.state_dict().items():
        assert torch.equal(weight, best_before[name])


def test_what_is_judged_and_kept_is_the_average(tmp_path):
    judged = []

    def evaluate(model):
        judged.append(
            {
                name: weight.clone()
                for name, weight in model.state_dict().items()
            }
        )
        return {"bleu4": 1.0}  # the first epoch stays the best

    settings = dataclasses.replace(SETTINGS, averaging=0.9)
    model = make_model()
    start = {
        name: weight.clone() for name, weight in model.state_dict().items()
    }
    train(
        model,
        make_loader(FewFeatures(), settings),
        evaluate,
        settings,
        tmp_path,
        progress=False,
    )
    best = CaptionModel.load(tmp_path / "best").state_dict()
    last = CaptionModel.load(tmp_path / "last").state_dict()
    for name in best:
        assert torch.equal(best[name], judged[0][name])
        assert torch.equal(
            last[name], model.state_dict()[name]
        )  # training goes on without it
    assert not torch.equal(
        judged[-1]["decoder.fc.weight"], last["decoder.fc.weight"]
    )

    plain = make_model()  # the same weights are trained, averaged or not
    settings = dataclasses.replace(SETTINGS)
    train(
        plain,
        make_loader(FewFeatures(), settings),
        evaluate,
        settings,
        tmp_path / "plain",
    )
    assert_same_weights(plain, model)
    assert not torch.equal(
        start["decoder.fc.weight"], best["decoder.fc.weight"]
    )


def test_the_average_is_that_of_torch():
    model = make_model()
    average = WeightAverage(model, 0.8)
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    reference.update_parameters(model)  # torch's first update copies
    average.updates = 1000  # past the beginning, where ours forgets faster
    for _ in range(5):
        with torch.no_grad():
            for weight in model.decoder.parameters():
                weight.add_(torch.randn_like(weight))
        average.update()
        reference.update_parameters(model)
    with average:
        for ours, theirs in zip(
            model.decoder.parameters(),
            reference.module.decoder.parameters(),
            strict=True,
        ):
            assert_close(ours, theirs)


def test_resume_after_the_end_changes_nothing(tmp_path):
    _, expected = run(tmp_path)
    before = (tmp_path / "last" / "model.safetensors").read_bytes()
    _, history = run(tmp_path, resume=True)
    assert history == expected
    assert (tmp_path / "last" / "model.safetensors").read_bytes() == before


def test_resume_with_nothing_there_starts_from_the_beginning(tmp_path):
    _, history = run(tmp_path / "new", resume=True)
    assert len(history) == 4


def test_a_second_training_does_not_overwrite_the_first(tmp_path):
    run(tmp_path)
    with pytest.raises(InputError, match="holds a training run already"):
        run(tmp_path)


def test_resume_with_other_settings_says_which(tmp_path):
    run(tmp_path)
    with pytest.raises(InputError, match="learning_rate=0.01, not 0.1"):
        run(
            tmp_path,
            dataclasses.replace(SETTINGS, learning_rate=0.1),
            resume=True,
        )


def stored_as(folder, number):
    """Give a training's files the format of another version."""
    path = folder / "last" / "training.json"
    place = json.loads(path.read_text())
    place.pop("format")
    if number is not None:
        place["format"] = number
    path.write_text(json.dumps(place))


@pytest.mark.parametrize(
    "number, version", [(None, "version 0.1"), (99, "a newer version")]
)
def test_another_versions_training_is_refused_in_one_line(
    tmp_path, number, version
):
    run(tmp_path, dataclasses.replace(SETTINGS, epochs=1))
    stored_as(tmp_path, number)
    before = (tmp_path / "last" / "model.safetensors").read_bytes()
    with pytest.raises(InputError) as error:
        run(tmp_path, dataclasses.replace(SETTINGS, epochs=1), resume=True)
    assert str(error.value) == (
        f"{tmp_path / 'last'}: is a training of {version} of captionlib, which this one can't "
        "resume; train into another folder"
    )
    assert (tmp_path / "last" / "model.safetensors").read_bytes() == before
    CaptionModel.load(tmp_path / "last")  # as a model it is as good as ever


def test_early_stopping_waits_for_patience(tmp_path):
    settings = dataclasses.replace(
        SETTINGS, epochs=30, patience=3, schedule="plateau"
    )
    _, history = run(
        tmp_path,
        settings,
        scores=lambda epoch: [1.0, 2.0, 3.0, 2.5][min(epoch, 4) - 1],
    )
    assert len(history) == 6


def test_a_loss_that_is_not_finite_names_its_step_and_spoils_nothing(tmp_path):
    class Spoiled(FewFeatures):
        def __init__(self):
            super().__init__()
            self.features[:] = math.inf

    model = make_model()
    before = {
        name: weight.clone() for name, weight in model.state_dict().items()
    }
    with pytest.raises(FloatingPointError, match="epoch 1, step 1"):
        train(
            model,
            make_loader(Spoiled(), SETTINGS),
            dict,
            SETTINGS,
            tmp_path,
            progress=False,
        )
    assert all(
        torch.equal(weight, before[name])
        for name, weight in model.state_dict().items()
    )


def test_gradients_are_clipped_together(tmp_path):
    settings = dataclasses.replace(SETTINGS, max_grad_norm=1e-9, epochs=1)
    model, _ = run(tmp_path, settings)
    norms = [weight.grad.norm() for weight in model.decoder.parameters()]
    assert torch.stack(norms).norm() <= 1.001e-9


def test_only_the_weights_that_may_move_do(tmp_path):
    before = make_model()
    model, _ = run(tmp_path, dataclasses.replace(SETTINGS, epochs=1))
    assert_same_weights(model.encoder, before.encoder)
    assert not torch.equal(model.decoder.fc.weight, before.decoder.fc.weight)


def test_second_stage_trains_the_encoder_at_its_own_rate(tmp_path):
    settings = dataclasses.replace(
        SETTINGS,
        epochs=1,
        batch_size=2,
        fine_tune_encoder=True,
        encoder_learning_rate=1e-3,
    )
    model = make_model()
    before = {
        name: tensor.clone()
        for name, tensor in model.encoder.state_dict().items()
    }
    train(
        model,
        make_loader(torch.utils.data.Subset(FewImages(), range(4)), settings),
        lambda model: {"bleu4": 1.0},
        settings,
        tmp_path,
        progress=False,
    )
    changed = {
        name
        for name, tensor in model.encoder.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    free = {
        name
        for name, weight in model.encoder.named_parameters()
        if weight.requires_grad
    }
    assert changed and changed <= free  # so no running statistics
    assert_same_weights(CaptionModel.load(tmp_path).encoder, model.encoder)


def test_bfloat16_trains_too(tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=10, bf16=True)
    model, history = run(tmp_path, settings)
    assert history[-1]["nats"] < history[0]["nats"]
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


class TwoViews(FewFeatures):
    """The same images twice, as `FeatureDataset` has those of a mirror."""

    views = ("plain", "mirrored")

    def __len__(self):
        return 16

    def __getitem__(self, i):
        view, image = divmod(i, 8)
        return (-self.features if view else self.features)[
            image
        ], *super().__getitem__(image)[1:]


def test_workers_change_nothing(tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=2)
    models = [make_model(), make_model()]
    for model, workers in zip(models, (0, 2), strict=True):
        loader = make_loader(TwoViews(), settings, num_workers=workers)
        assert len(loader) == 3
        to = tmp_path / str(workers)
        train(
            model,
            loader,
            lambda model: {"bleu4": 1.0},
            settings,
            to,
            progress=False,
        )
    assert_same_weights(*models)


def test_compiled_layers_compute_the_same(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip(
            "torch.compile needs a C++ compiler, and there is no g++ here"
        )
    settings = dataclasses.replace(SETTINGS, epochs=1, batch_size=8)  # one step
    plain, expected = run(tmp_path / "plain", settings)
    compiled, history = run(
        tmp_path / "compiled", dataclasses.replace(settings, compile=True)
    )
    assert history[0]["nats"] == pytest.approx(expected[0]["nats"], rel=1e-5)
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    # Gradients and not weights: Adam's first step has one length, however small the gradient is.
    one, other = (
        torch.cat(
            [weight.grad.flatten() for weight in model.decoder.parameters()]
        )
        for model in (plain, compiled)
    )
    assert (one - other).norm() < 1e-4 * one.norm()
    assert compiled.decoder.attention._compiled_call_impl is not None


# Batches


def test_batches_show_each_image_once():
    batches = Batches(11, 4)
    assert len(batches) == 3 and [len(batch) for batch in batches] == [4, 4, 3]
    assert sorted(sum(batches, [])) == list(range(11))
    assert list(batches) == list(batches)
    first = list(batches)
    batches.begin(seed=1)
    assert list(batches) != first


def test_batches_can_be_begun_in_the_middle():
    batches = Batches(11, 4, views=3)
    whole = list(batches)
    batches.begin(seed=0, skip=2)
    assert list(batches) == whole[2:] and len(batches) == 3
    batches.begin(seed=0, skip=3)
    assert list(batches) == []


def test_batches_draw_each_images_view():
    batches, seen = Batches(5, 2, views=3), set()
    for seed in range(60):
        batches.begin(seed)
        items = sum(batches, [])
        assert sorted(item % 5 for item in items) == list(range(5))
        seen.update(items)
    assert seen == set(range(15))


def test_processes_share_each_batch():
    pair = [Processes() for _ in range(2)]
    for number, process in enumerate(pair):
        process.number, process.count = number, 2
    whole = list(Batches(11, 4))
    halves = [list(Batches(11, 4, processes=process)) for process in pair]
    for batch, one, other in zip(whole, *halves, strict=True):
        assert (
            sorted(one + other) == sorted(batch)
            and 0 <= len(one) - len(other) <= 1
        )
    with pytest.raises(
        InputError, match="batches of 1 images can't be shared by 2 processes"
    ):
        Batches(11, 1, processes=pair[0])
    # One image can't be shared by two: it joins the batch before.
    halves = [list(Batches(9, 4, processes=process)) for process in pair]
    assert [len(one) + len(two) for one, two in zip(*halves, strict=True)] == [
        4,
        5,
    ]
    assert sorted(sum(halves[0] + halves[1], [])) == list(range(9))
