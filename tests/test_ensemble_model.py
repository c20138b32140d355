"""Several captioners in one folder, and weights stored as int8."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from captionlib.beam_search import beam_search
from captionlib.captioner import Captioner
from captionlib.config import ModelConfig, SearchConfig
from captionlib.data import Vocabulary, read_image
from captionlib.engine import evaluate_split, train_recipe
from captionlib.io.files import InputError
from captionlib.io.int8 import dequantise, quantise
from captionlib.model import CaptionEnsemble, CaptionModel
from captionlib.toy.scenes import write_scenes
from tools import results
from tools.experiments import captioners

VOCABULARY = Vocabulary.build(["a dog runs on grass".split()], min_word_freq=1)
SMALL = ModelConfig(attention_dim=13, embed_dim=7, decoder_dim=11)
OTHER = ModelConfig(attention_dim=5, embed_dim=9, decoder_dim=8, feature_dim=17)


def make(config=SMALL, seed=0, encoder=None) -> CaptionModel:
    torch.manual_seed(seed)
    return CaptionModel(config, VOCABULARY, encoder).eval()


def shared() -> CaptionEnsemble:
    """Two decoders of different sizes on one changed encoder."""
    first = make()
    with torch.no_grad():
        for weight in first.encoder.parameters():
            weight.mul_(1.01)
    first.own_encoder = True
    return CaptionEnsemble([first, make(OTHER, 1, first.encoder)]).eval()


def separate() -> CaptionEnsemble:
    """A captioner with an encoder of its own beside one with the packaged."""
    own = make(OTHER, 3)
    with torch.no_grad():
        for weight in own.encoder.parameters():
            weight.mul_(0.99)
    own.own_encoder = True
    return CaptionEnsemble([make(SMALL, 2), own]).eval()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    shape = (3, 3, 96, 96)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def first_step(model, images):
    words = torch.full((len(images),), VOCABULARY.start, dtype=torch.long)
    with torch.inference_mode():
        state = model.decoder.begin(model.encode(images))
        return model.decoder.step(words, state)[0].softmax(dim=1)


@pytest.mark.parametrize("make_ensemble", [shared, separate])
def test_a_step_gives_the_mean_of_the_members_probabilities(
    make_ensemble, images
):
    ensemble = make_ensemble()
    alone = [first_step(member, images) for member in ensemble.members]
    assert not torch.allclose(*alone, atol=1e-3)
    assert_close(first_step(ensemble, images), sum(alone) / 2)
    again = ensemble.encode(ensemble.encode(images))  # as from a cache
    assert torch.equal(again, ensemble.encode(images))


def test_a_shared_encoder_runs_once(images):
    ensemble, calls = shared(), []
    ensemble.members[0].encoder.register_forward_hook(
        lambda *_: calls.append(1)
    )
    first_step(ensemble, images)
    assert len(calls) == 1


@pytest.mark.parametrize("numbers", ["float32", "float16", "int8"])
@pytest.mark.parametrize("make_ensemble", [shared, separate])
def test_it_comes_back_from_its_folder(
    tmp_path, make_ensemble, images, numbers
):
    ensemble = make_ensemble()
    ensemble.search, ensemble.metrics = {"beam_size": 3}, {"bleu4": 12.5}
    ensemble.members[0].trained_on = {3}
    ensemble.trained_on = {3, 5}
    ensemble.save(tmp_path, numbers)
    again = CaptionModel.load(tmp_path)
    assert (again.search, again.metrics) == ({"beam_size": 3}, {"bleu4": 12.5})
    assert again.trained_on == {3, 5} and not again.training
    sharing = len(again.encoders)
    assert sharing == len(ensemble.encoders)
    expected = first_step(ensemble, images)
    exact = 0.0 if numbers == "float32" else 0.02
    assert_close(first_step(again, images), expected, atol=exact, rtol=0)
    for number, member in enumerate(again.members):
        alone = CaptionModel.load(tmp_path, member=number)
        assert_close(
            first_step(alone, images),
            first_step(member, images),
            atol=0,
            rtol=0,
        )


def test_saved_twice_it_is_the_same_file(tmp_path):
    shared().save(tmp_path / "one", "int8")
    CaptionModel.load(tmp_path / "one").save(tmp_path / "two", "int8")
    for name in ("model.safetensors", "config.json"):
        one, two = (tmp_path / to / name for to in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), name


def test_a_shared_encoder_is_stored_once_and_a_packaged_one_not_at_all(
    tmp_path,
):
    whole = sum(weight.numel() for weight in shared().encoders[0].parameters())
    shared().save(tmp_path / "shared", "int8")
    separate().save(tmp_path / "separate", "int8")
    for name in ("shared", "separate"):
        stored = load_file(tmp_path / name / "model.safetensors")
        encoders = {name.split(".")[1] for name in stored if "encoders" in name}
        assert len(encoders) == 1
        size = (tmp_path / name / "model.safetensors").stat().st_size
        assert whole < size < 1.2 * whole


def test_members_need_one_vocabulary():
    other = Vocabulary.build(["a cat runs on grass".split()], min_word_freq=1)
    with pytest.raises(ValueError, match="one vocabulary"):
        CaptionEnsemble([make(), CaptionModel(SMALL, other)])


@pytest.mark.parametrize("member", [2, -3])
def test_a_member_that_is_not_there(tmp_path, member):
    shared().save(tmp_path)
    with pytest.raises(InputError, match="damaged"):
        CaptionModel.load(tmp_path, member=member)


def test_a_damaged_ensemble_is_named(tmp_path):
    shared().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["members"][1]["weights"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="can't be read as a captioner"):
        CaptionModel.load(tmp_path)


def test_a_captioner_takes_an_ensemble_as_any_model(tmp_path, images):
    ensemble = shared()
    ensemble.search = {"beam_size": 2, "max_words": 6}
    ensemble.save(tmp_path)
    pixels = images[0].permute(1, 2, 0).numpy()
    caption = Captioner.from_pretrained(tmp_path).caption(pixels)
    sums = torch.from_numpy(caption.alphas).sum(dim=(1, 2))
    assert_close(sums, torch.ones(len(caption.words)))
    read = torch.from_numpy(read_image(pixels))[None]
    with torch.inference_mode():
        (best,) = beam_search(
            ensemble.decoder,
            ensemble.encode(read),
            VOCABULARY,
            SearchConfig(beam_size=2, max_words=6),
        )
    assert VOCABULARY.decode(best.word_ids) == caption.words
    assert_close(float(best.log_prob), caption.log_prob)


@pytest.mark.long
def test_the_experiment_compares_captioners_and_keeps_rows(tmp_path):
    scenes = write_scenes(tmp_path / "scenes", train=0, val=3, test=0)
    model, same = CaptionModel.load("toy"), CaptionModel.load("toy")
    model.save(tmp_path / "one")
    CaptionEnsemble([model, same]).save(tmp_path / "two", "int8")
    to = tmp_path / "stored.json"
    command = ["--captions", str(scenes), "--images"]
    command += [str(scenes.parent / "images"), "--to", str(to), "--quick"]
    command += [
        f"{name}:{name} there={tmp_path / name}" for name in ("one", "two")
    ]
    captioners.main(command)
    rows = json.loads(to.read_text())["rows"]
    assert [row["decoders"] for row in rows.values()] == [1, 2]
    # Twice the same decoder, rounded: the same captions but for near ties.
    assert abs(rows["one"]["bleu4"] - rows["two"]["bleu4"]) < 10
    assert all(row["seconds"] > 0 for row in rows.values())
    before = to.stat().st_mtime_ns
    captioners.main(command)
    assert to.stat().st_mtime_ns == before
    table = "\n".join(results.captioners(json.loads(to.read_text())))
    for name, row in rows.items():
        assert f"| {name} there | {row['megabytes']:.1f} |" in table


def test_training_starts_from_the_first_member_and_evaluation_uses_all(
    tmp_path, capsys
):
    scenes = write_scenes(tmp_path / "scenes", train=6, val=3, test=3)
    photographs = scenes.parent / "images"
    settings = {"epochs": 1, "batch_size": 4, "progress": False}
    train_recipe(
        None,
        to=tmp_path / "one",
        captions=scenes,
        images=photographs,
        attention_dim=8,
        embed_dim=8,
        decoder_dim=8,
        **settings,
    )
    one = CaptionModel.load(tmp_path / "one")
    torch.manual_seed(7)
    two = CaptionModel(one.config, one.vocabulary, one.encoder)
    ensemble = CaptionEnsemble([one, two])
    ensemble.trained_on = one.trained_on
    ensemble.save(tmp_path / "both")
    done = evaluate_split(
        scenes, photographs, "val", model=str(tmp_path / "both")
    )
    assert done.about["model"]["ensemble_of"] == 2
    capsys.readouterr()
    train_recipe(
        None,
        to=tmp_path / "further",
        data=str(tmp_path / "one" / "data"),
        start_from=str(tmp_path / "both"),
        learning_rate=1e-12,
        **settings,
    )
    assert (
        "both, the first of its 2 captioners, before" in capsys.readouterr().out
    )
    further = CaptionModel.load(tmp_path / "further")
    for name, weight in one.decoder.state_dict().items():
        assert_close(further.decoder.state_dict()[name], weight)


# Weights as int8


@pytest.mark.parametrize("shape", [(5, 3), (4, 1), (6, 2, 3, 3), (1, 7)])
def test_no_weight_is_off_by_more_than_half_its_channels_scale(shape):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=generator)
    weight *= torch.logspace(-6, 3, len(weight)).view(
        -1, *[1] * (len(shape) - 1)
    )
    codes, scale = quantise(weight)
    assert codes.dtype == torch.int8 and codes.shape == weight.shape
    off = (dequantise(codes, scale) - weight).flatten(1).abs().amax(dim=1)
    assert (off <= scale * 0.5001).all()
    assert (codes.flatten(1).abs().amax(dim=1) == 127).all()


def test_zeros_stay_zeros_and_rounding_twice_changes_nothing():
    weight = torch.tensor([[0.0, 0.0], [1.0, -0.3]])
    codes, scale = quantise(weight)
    again = dequantise(codes, scale)
    assert (again[0] == 0).all()
    assert torch.equal(quantise(again)[0], codes)
    assert_close(quantise(again)[1], scale)
