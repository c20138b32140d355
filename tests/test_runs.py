"""What the shipped recipe needs: crops, the encoder's last stages, the weights at the end."""

import re
import shutil

import h5py
import pytest
import torch
from safetensors.torch import load_file

from captionlib.config import Recipe, ViewConfig
from captionlib.data import image_file
from captionlib.engine import train_recipe
from captionlib.engine.fine_tuning import stages
from captionlib.engine.views import open_views, write_crops
from captionlib.io.files import read_json
from captionlib.model import CaptionModel

RECIPE = Recipe(
    name="halves",
    scenes={"train": 8, "val": 3, "test": 0, "seed": 1},
    data={"min_word_freq": 1, "max_len": 20},
    model={
        "image_size": 64,
        "attention_dim": 8,
        "embed_dim": 8,
        "decoder_dim": 8,
    },
    mirrored=True,
    crops=True,
    last_stages=2,
    stages=[
        {"epochs": 2, "batch_size": 4, "averaging": 0.5, "keep": "end"},
        {"epochs": 2, "batch_size": 4, "keep": "end", "fine_tune_encoder": True}
        | {"encoder_learning_rate": 1e-3, "averaging": 0.5},
    ],
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    to = tmp_path_factory.mktemp("halves") / "model"
    said = []
    return train_recipe(RECIPE, to=to, say=said.append), said


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_views_are_encoded_once_up_to_the_last_stages(trained):
    data = trained[0].stages[-1] / "data"
    names = {path.name for path in data.glob("*_tf_*.hdf5")}
    ends = re.compile("_tf_efficientnet_lite0_own_but_2_[0-9a-f]{8}.hdf5$")
    assert {ends.sub("", name) for name in names} == {
        f"{split}_{view}"
        for split, view in [
            ("TRAIN", "FEATURES"),
            ("TRAIN", "MIRRORED"),
            ("TRAIN", "CROPS_FEATURES"),
            ("TRAIN", "CROPS_MIRRORED"),
            ("VAL", "FEATURES"),
        ]
    }
    encoded = [line for line in trained[1] if "images once, to be kept" in line]
    assert len(encoded) == len(names)  # and stage two found them


def test_only_the_last_stages_are_fine_tuned(trained):
    first, second = (
        CaptionModel.load(stage / "best") for stage in trained[0].stages
    )
    untouched = CaptionModel(first.config, first.vocabulary)
    rows = [stages(model.encoder) for model in (untouched, first, second)]
    changed = [
        not all(
            one.state_dict()[name].equal(other.state_dict()[name])
            for name in one.state_dict()
        )
        for one, other in zip(rows[0], rows[2], strict=True)
    ]
    assert changed == [False] * (len(changed) - 2) + [True] * 2
    for one, other in zip(rows[0], rows[1], strict=True):
        assert all(
            one.state_dict()[name].equal(other.state_dict()[name])
            for name in one.state_dict()
        )


def test_the_captioner_is_the_average_at_the_end(trained):
    for stage in trained[0].stages:
        average = load_file(stage / "last" / "average.safetensors")
        best = weights(stage / "best")
        names = average.keys() & best.keys()
        assert any(name.startswith("decoder.") for name in names)
        assert all(average[name].equal(best[name]) for name in names)
        training = read_json(stage / "best/config.json")["metrics"]["training"]
        assert training["epoch"] == 2 and training["split"] == "VAL"


def test_stopped_before_the_end_was_kept_it_is_kept_later(trained, tmp_path):
    model = shutil.copytree(trained[0].stages[-1], tmp_path / "model")
    expected = weights(model / "best")
    spoiled = CaptionModel.load(model / "last")
    spoiled.metrics["training"] = {"epoch": 1}
    for stage in (model, model / "stage1"):
        spoiled.save(stage / "best")
    before = (model / "stage1" / "log.jsonl").stat().st_mtime_ns
    train_recipe(to=model, resume=True, say=lambda line: None)
    found = weights(model / "best")
    assert all(found[name].equal(expected[name]) for name in expected)
    assert (model / "stage1" / "log.jsonl").stat().st_mtime_ns == before
    first = read_json(model / "stage1/best/config.json")
    assert first["metrics"]["training"]["epoch"] == 2


def test_crops_are_parts_of_their_images_and_written_once(trained, tmp_path):
    images = image_file(trained[0].stages[-1] / "data", "TRAIN")
    crops = write_crops(images, tmp_path / "crops.hdf5")
    written = crops.stat().st_mtime_ns
    assert write_crops(images, crops).stat().st_mtime_ns == written
    again = write_crops(images, tmp_path / "again.hdf5")
    other = write_crops(images, tmp_path / "other.hdf5", seed=1)
    with (
        h5py.File(images) as a,
        h5py.File(crops) as b,
        h5py.File(again) as c,
        h5py.File(other) as d,
    ):
        whole, cropped = a["images"][:], b["images"][:]
        assert dict(a.attrs) == dict(b.attrs)
        assert whole.shape == cropped.shape
        assert (cropped == c["images"][:]).all()
        assert (cropped != d["images"][:]).any()
    # A crop is like its own image, enlarged, and unlike the others.
    flat = [
        torch.from_numpy(pixels).float().flatten(1)
        for pixels in (whole, cropped)
    ]
    distances = torch.cdist(*flat)
    assert (distances.argmin(dim=0) == torch.arange(len(whole))).all()
    assert (distances.diagonal() > 0).all()


def test_views_of_pixels_are_mirrored_and_cropped_too(trained, tmp_path):
    data = trained[0].stages[-1] / "data"
    views = ViewConfig(mirrored=True, crops=True)
    plain, mirrored, cropped, both = open_views(views, data, "TRAIN", tmp_path)
    assert torch.equal(plain[0].flip(2), mirrored[0])
    assert torch.equal(cropped[0].flip(2), both[0])
    assert not torch.equal(plain[0], cropped[0])
    assert len(open_views(views, data, "VAL", tmp_path)) == 1
    (crops,) = tmp_path.iterdir()
    assert re.fullmatch("TRAIN_CROPS_[0-9a-f]{8}.hdf5", crops.name)
