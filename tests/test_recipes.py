"""Recipes: each is what it says, and one runs from an empty folder to a captioner."""

import contextlib
import io
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trees import coco_tree

from benchmarks import from_chapter
from captionlib import Captioner, cli
from captionlib.config import (
    DataConfig,
    EngineConfig,
    ModelConfig,
    Recipe,
    SearchConfig,
)
from captionlib.encoder import Encoder
from captionlib.engine import runs, train_recipe
from captionlib.engine.precision import StepTimes
from captionlib.engine.recipes import RECIPES, find_recipe, read_recipe
from captionlib.io.files import InputError, read_json
from captionlib.model import CaptionModel
from tools import toy

ROOT = Path(__file__).parent.parent
SIZES = {"image_size": 64, "attention_dim": 8, "embed_dim": 8, "decoder_dim": 8}
TINY = {
    "about": ["Two stages, in seconds."],
    "scenes": {"train": 8, "val": 3, "test": 2, "seed": 1},
    "data": {"dataset": "scenes", "min_word_freq": 1, "max_len": 20},
    "model": SIZES,
    "mirrored": True,
    "stages": [
        {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3},
        {"fine_tune_encoder": True, "epochs": 1, "batch_size": 4},
    ],
    "search": {"beam_size": 2, "max_words": 6},
}


def call(*words) -> tuple[int, str, str]:
    """The command in this process: status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([str(word) for word in words])
    return status, out.getvalue(), err.getvalue()


def refused(*words) -> str:
    """The one line that the command ends with."""
    status, out, err = call(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    return err


def losses(folder: Path) -> list:
    """What a training's log says, times left out."""
    rows = [
        json.loads(line)
        for line in (folder / "log.jsonl").read_text().splitlines()
    ]
    return [
        {k: v for k, v in row.items() if not k.endswith("_seconds")}
        for row in rows
    ]


# ------------------------------------------------------------------------------ what they say


@pytest.mark.parametrize("name", RECIPES)
def test_a_packaged_recipe_is_a_valid_training(name):
    recipe = read_recipe(name)
    assert (
        recipe.name == name
        and recipe.about
        and recipe.data["dataset"] in name + "scenes flickr8k"
    )
    ModelConfig(**recipe.model)
    SearchConfig(**recipe.search)
    DataConfig(
        **{key: value for key, value in recipe.data.items() if key != "dataset"}
    )
    for stage in recipe.stages:
        EngineConfig(**stage)
    assert f"`{name}`" in (ROOT / "book" / "command_line.md").read_text(
        encoding="utf-8"
    )


def test_the_originals_settings():
    recipe = read_recipe("coco-original")
    assert ModelConfig(**recipe.model) == ModelConfig(
        backbone="resnet101", grid_size=14
    )
    first, second = recipe.stages
    captions = recipe.data["captions_per_image"]
    assert (
        first["batch_size"] * captions == 80
        and second["batch_size"] * captions <= 32
    )
    assert (
        first["learning_rate"] == 4e-4
        and second["encoder_learning_rate"] == 1e-4
    )
    # The rest is what EngineConfig has from the original.
    assert EngineConfig(**first) == EngineConfig(epochs=20, batch_size=16)
    assert not recipe.cache_features and not recipe.mirrored


def test_chapter_10_trains_the_encoder_more_gently_than_the_decoder():
    defined = from_chapter("10_gpu_training", "RUN = ", "SMALL = ")
    first, second = (EngineConfig(**s) for s in defined["SMALL"].stages)
    assert not first.fine_tune_encoder and second.fine_tune_encoder
    assert second.encoder_learning_rate < second.learning_rate
    assert second.learning_rate < first.learning_rate


def test_the_toy_recipe_made_the_packaged_toy():
    recipe, stored = (
        read_recipe("toy"),
        read_json(RECIPES["toy"].parents[1] / "toy/config.json"),
    )
    assert (
        asdict(ModelConfig(**recipe.model)).items() >= stored["model"].items()
    )
    assert recipe.search == stored["search"]
    made = stored["metrics"]["validation"]
    assert all(
        made[part] == recipe.scenes[part] for part in ("train", "val", "seed")
    )


def test_a_recipe_of_ones_own_is_checked(tmp_path):
    path = tmp_path / "mine.json"
    mistakes = {
        "must be an object": [],
        "unknown setting 'epochs'": {"epochs": 3},
        "model: unknown setting 'embedding_dim'; expected one of backbone": {
            "model": {"embedding_dim": 8}
        },
        "stages 2: unknown setting 'beam_size'": {
            "stages": [{}, {"beam_size": 2}]
        },
        "stages 1: epochs: must be a whole number, got '3'": {
            "stages": [{"epochs": "3"}]
        },
        "stages 1: epochs: must be at least 1 and at most 1000000, got 0": {
            "stages": [{"epochs": 0}]
        },
        "search: beam_size: must be at least 1 and at most 10000, got 0": {
            "search": {"beam_size": 0}
        },
        "stages 1: bf16: must be one of off, on, auto, got 1": {
            "stages": [{"bf16": 1}]
        },
        "dropout: must be a number, got None": {"model": {"dropout": None}},
        "decoder_dim: must be a whole number, got True": {
            "model": {"decoder_dim": True}
        },
        "stages: must be a list": {"stages": {"epochs": 1}},
        "has no stages": {"stages": []},
        "mirrored: must be true or false": {"mirrored": "yes"},
        "backbone: must be a string": {"model": {"backbone": 18}},
        "data: unknown setting 'split'": {"data": {"split": "val"}},
        "data: dataset: must be a string": {"data": {"dataset": 8}},
        "about: must be a list": {"about": "reasons"},
        "scenes: must be an object": {"scenes": 300},
        "validation_beam_size: must be at least 1": {"validation_beam_size": 0},
    }
    for said, value in mistakes.items():
        path.write_text(json.dumps(value))
        with pytest.raises(InputError, match=re.escape(said)) as error:
            read_recipe(path)
        assert str(error.value).startswith(f"{path}: ")
    path.write_text(
        '{"stages": [{"learning_rate": 1}]}'
    )  # a whole number is a number
    assert read_recipe(path) == Recipe(
        name="mine", stages=[{"learning_rate": 1}]
    )


def test_a_setting_that_is_given_comes_before_the_recipe_in_every_stage():
    recipe = Recipe(stages=[{"epochs": 2}, {"epochs": 3, "seed": 1}])
    changed = recipe.overridden(
        {"epochs": 1, "beam_size": 2, "decoder_dim": 8, "crops": True}
    )
    assert changed.stages == [{"epochs": 1}, {"epochs": 1, "seed": 1}]
    assert changed.search == {"beam_size": 2} and changed.crops
    assert changed.model == {"decoder_dim": 8}
    with pytest.raises(TypeError, match="bream_size: no such setting"):
        recipe.overridden({"bream_size": 2})


def test_a_recipe_may_be_an_object(tmp_path):
    recipe = Recipe(name="mine")
    assert find_recipe(recipe, tmp_path, resume=True) is recipe
    assert find_recipe(None, tmp_path, resume=False) == Recipe()


@pytest.mark.parametrize(
    "spelled, meant",
    [(True, True), (False, False), ("on", True), ("off", False)],
)
def test_bf16_is_spelled_in_more_than_one_way(spelled, meant):
    assert EngineConfig(bf16=spelled).bf16 is meant
    assert EngineConfig(bf16="auto").bf16 == "auto"
    with pytest.raises(ValueError, match="one of off, on, auto"):
        EngineConfig(bf16="sometimes")


# ---------------------------------------------------------------------------------- from nothing


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A recipe of two stages, and what it leaves in an empty folder."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "tiny.json").write_text(json.dumps(TINY))
    status, out, err = call(
        "train", "--recipe", folder / "tiny.json", "--to", folder / "model"
    )
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert "stage1" in next(
        line for line in lines if "epoch 1, BLEU" in line or "epoch 2" in line
    )
    assert lines[-1].startswith(f"{folder / 'model' / 'best'}: epoch 1")
    return folder


def test_a_recipe_runs_from_an_empty_folder(tiny):
    model = tiny / "model"
    assert {path.name for path in model.iterdir()} == {
        "scenes", "data", "recipe.json", "stage1", "best", "last", "log.jsonl", "curve.png",
    }  # fmt: skip
    assert [len(losses(folder)) for folder in (model / "stage1", model)] == [
        2,
        1,
    ]
    first, second = (
        read_json(f / "last/training.json") for f in (model / "stage1", model)
    )
    assert first["config"] == asdict(EngineConfig(**TINY["stages"][0]))
    assert second["config"] == asdict(EngineConfig(**TINY["stages"][1]))
    caches = sorted(
        path.name.split("_")[1]
        for path in (model / "data").glob("TRAIN_*_tf_*")
    )
    assert caches == ["FEATURES", "MIRRORED"]
    captioner = Captioner.from_pretrained(model)
    assert asdict(captioner.search).items() >= TINY["search"].items()
    assert captioner.model.config == ModelConfig(**SIZES)
    assert captioner.caption(
        model / "scenes/images/test_00001.png"
    ).alphas.shape[1:] == (2, 2)


def test_stage_two_begins_with_the_best_of_stage_one_and_trains_the_encoder(
    tiny,
):
    first, second = (
        CaptionModel.load(tiny / "model" / part) for part in ("stage1", "best")
    )
    stored = [
        read_json(tiny / "model" / part / "config.json")
        for part in ("stage1/best", "best")
    ]
    assert [config["encoder_weights"] for config in stored] == [
        "packaged",
        "saved",
    ]
    before, after = first.encoder.state_dict(), second.encoder.state_dict()
    changed = [name for name in before if not before[name].equal(after[name])]
    assert changed and not any(
        name.startswith("trunk.conv_stem") for name in changed
    )
    moved = (first.decoder.fc.weight - second.decoder.fc.weight).abs().max()
    assert 0 < moved < 0.01  # two steps away, not another beginning


def test_a_recipe_goes_on_where_it_stopped(tiny, tmp_path):
    model = shutil.copytree(tiny / "model", tmp_path / "model")
    first = (model / "stage1" / "log.jsonl").stat().st_mtime_ns
    for part in (
        "best",
        "last",
    ):  # as if it had been stopped at the beginning of stage two
        shutil.rmtree(model / part)
    (model / "log.jsonl").unlink()
    status, out, err = call("train", "--to", model, "--resume")
    assert (status, err) == (0, "")
    assert f"{model / 'stage1' / 'best'}:" not in out  # not trained again
    assert (model / "stage1" / "log.jsonl").stat().st_mtime_ns == first
    assert losses(model) == losses(tiny / "model")
    weights = [f / "best/model.safetensors" for f in (model, tiny / "model")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    # Once more, by its name: nothing is left to do. By another name it would be another training.
    again = ("train", "--recipe", tiny / "tiny.json", "--to", model, "--resume")
    assert call(*again)[0] == 0 and losses(model) == losses(tiny / "model")
    assert "--recipe tiny" in refused(
        "train", "--recipe", "toy", "--to", model, "--resume"
    )
    assert "batch_size" in refused(*again, "--batch-size", 8)
    assert call(*again)[0] == 0  # the mistake was not kept


def test_a_training_of_version_0_1_is_not_resumed_in_one_line(tiny, tmp_path):
    model = shutil.copytree(tiny / "model", tmp_path / "model")
    place = model / "last" / "training.json"
    stored = read_json(place)
    del stored["config"]["keep"]  # which came with 0.2
    place.write_text(json.dumps(stored))
    line = refused("train", "--to", model, "--resume")
    assert f"{model}: was begun with another version" in line
    assert f"--start-from {model}" in line


def test_a_training_in_the_way_is_said_at_once(tiny, tmp_path):
    assert "holds a training" in refused(
        "train", "--recipe", tiny / "tiny.json", "--to", tiny / "model"
    )
    shutil.copytree(tiny / "model" / "stage1", tmp_path / "model" / "stage1")
    words = (
        "train",
        "--recipe",
        tiny / "tiny.json",
        "--to",
        tmp_path / "model",
    )
    assert "stage1: holds a training" in refused(*words)
    assert not (tmp_path / "model" / "scenes").exists()


def test_options_come_before_the_recipe_and_are_kept(tiny, tmp_path):
    data, to = tiny / "model" / "data", tmp_path / "model"
    words = [
        "train",
        "--recipe",
        tiny / "tiny.json",
        "--data",
        data,
        "--to",
        to,
        "--epochs",
        1,
    ]
    words += [
        "--no-fine-tune-encoder",
        "--no-mirrored",
        "--decoder-dim",
        4,
        "--beam-size",
        3,
    ]
    assert call(*words, "--features", tmp_path)[0] == 0
    assert not list(tmp_path.glob("TRAIN_MIRRORED*")) and list(
        tmp_path.glob("TRAIN_FEATURES*")
    )
    kept = read_recipe(to / "recipe.json")
    assert (
        kept.name == "tiny"
        and not kept.mirrored
        and kept.search["beam_size"] == 3
    )
    assert [stage["epochs"] for stage in kept.stages] == [1, 1]
    for stage in (to, to / "stage1"):
        config = read_json(stage / "last" / "config.json")
        assert (
            config["model"]["decoder_dim"] == 4
            and config["search"]["max_words"] == 6
        )
        assert not read_json(stage / "last" / "training.json")["config"][
            "fine_tune_encoder"
        ]


def test_mirroring_is_kept_without_a_recipe_too(tiny, tmp_path):
    words = [
        "train",
        "--data",
        tiny / "model" / "data",
        "--to",
        tmp_path,
        "--features",
        tmp_path,
    ]
    sizes = [
        f"--{name.replace('_', '-')}={value}" for name, value in SIZES.items()
    ]
    assert call(*words, *sizes, "--mirrored", "--epochs", 1)[0] == 0
    assert read_recipe(tmp_path / "recipe.json").mirrored
    assert list(tmp_path.glob("TRAIN_MIRRORED*"))
    assert "no recipe" in refused(*words, "--recipe", "toy", "--resume")


def test_python_trains_a_recipe_as_the_command_does(tiny, tmp_path):
    said = []
    trained = train_recipe(
        tiny / "tiny.json",
        to=tmp_path / "model",
        data=str(tiny / "model" / "data"),
        features=str(tmp_path),
        say=said.append,
    )
    assert trained.best == tmp_path / "model" / "best"
    assert [len(losses(stage)) for stage in trained.stages] == [2, 1]
    assert losses(tmp_path / "model") == losses(tiny / "model")
    assert [row["bleu4"] for row in trained.history] == [
        row["bleu4"] for row in losses(tiny / "model")
    ]
    weights = [
        (folder / "best" / "model.safetensors").read_bytes()
        for folder in (tiny / "model", tmp_path / "model")
    ]
    assert weights[0] == weights[1]
    assert said[-1].startswith(f"{trained.best}: epoch 1, BLEU-4")
    with pytest.raises(TypeError, match="epoch: no such setting"):
        train_recipe("toy", to=tmp_path / "other", epoch=3)
    with pytest.raises(InputError, match="epochs must be at least 1 and"):
        train_recipe("toy", to=tmp_path / "other", epochs=0)
    assert not (tmp_path / "other").exists()


def test_bf16_auto_is_measured_once_and_kept(tiny, tmp_path, monkeypatch):
    measured = []

    def measure(model, batches, objective, config):
        measured.append(batches)
        return StepTimes(2.0, 1.0, 8)

    monkeypatch.setattr(runs, "time_steps", measure)
    said = []
    words = {
        "to": tmp_path / "model",
        "data": str(tiny / "model" / "data"),
        "features": str(tmp_path),
        "say": said.append,
    }
    train_recipe(tiny / "tiny.json", bf16="auto", **words)
    # Stage one is fed grids, stage two photographs.
    assert [batches[0][0].dtype for batches in measured] == [
        torch.float16,
        torch.uint8,
    ]
    expected = StepTimes(2.0, 1.0, 8)
    assert [line for line in said if line == str(expected)] == said[:1] * 2
    for stage in ("stage1", "."):
        config = read_json(tmp_path / "model" / stage / "last/training.json")
        assert config["config"]["bf16"] is True
    kept = read_recipe(tmp_path / "model" / "recipe.json")
    assert {stage["bf16"] for stage in kept.stages} == {"auto"}
    train_recipe(resume=True, **words)
    assert len(measured) == 2  # what was chosen is stored
    with pytest.raises(InputError, match="bf16=True, not False"):
        train_recipe(resume=True, bf16=False, **words)


@pytest.mark.parametrize("name", ["coco", "coco-original"])
def test_a_coco_shaped_run_takes_both_stages(name, tmp_path):
    karpathy, images = coco_tree(tmp_path)
    to = tmp_path / "model"
    words = [
        "train",
        "--recipe",
        name,
        "--karpathy-json",
        karpathy,
        "--images",
        images,
        "--to",
        to,
    ]
    words += [
        "--backbone",
        "tf_efficientnet_lite0",
        "--image-size",
        64,
        "--attention-dim",
        8,
    ]
    words += [
        "--embed-dim",
        8,
        "--decoder-dim",
        8,
        "--epochs",
        1,
        "--batch-size",
        2,
        "--no-bf16",
    ]
    words += ["--feature-dim", 8, "--mirrored", "--seed", 3]
    status, _, err = call(*words)
    assert (status, err) == (0, "")
    base = "coco_5_cap_per_img_5_min_word_freq"
    assert {"a", "zebra", "giraffe"} <= read_json(
        to / "data" / f"WORDMAP_{base}.json"
    ).keys()
    lengths = read_json(to / "data" / f"TRAIN_CAPLENS_{base}.json")
    assert len(lengths) == 3 * 5  # restval is trained on
    cached = sorted(
        path.name.split("_")[1] for path in (to / "data").glob("TRAIN_*_tf_*")
    )
    assert cached == (["FEATURES", "MIRRORED"] if name == "coco" else [])
    recipe = read_recipe(name)
    for folder, stage in zip((to / "stage1", to), recipe.stages, strict=True):
        stored = read_json(folder / "last" / "training.json")
        asked = {"epochs": 1, "batch_size": 2, "bf16": False, "seed": 3}
        assert stored["config"] == asdict(EngineConfig(**stage | asked))
        assert stored["history"][0]["data"] == base
    model = CaptionModel.load(to)
    assert (
        model.config.feature_dim == 8
        and model.config.grid_size == recipe.model.get("grid_size")
    )
    packaged = Encoder("tf_efficientnet_lite0").state_dict()
    tuned = model.encoder.state_dict()
    assert not all(packaged[key].equal(tuned[key]) for key in packaged)
    status, out, _ = call(
        "caption", *(images / "val2014").iterdir(), "--model", to, "--json"
    )
    assert status == 0 and len(out.splitlines()) == 3


def test_make_toy_keeps_what_the_recipe_made(monkeypatch, tmp_path):
    (tmp_path / "toy.json").write_text(
        json.dumps(TINY | {"stages": TINY["stages"][:1]})
    )
    monkeypatch.setitem(RECIPES, "toy", tmp_path / "toy.json")
    monkeypatch.setattr(toy, "TO", tmp_path / "toy")
    toy.main()
    model = CaptionModel.load(tmp_path / "toy")
    made = model.metrics["validation"]
    assert (
        made.items()
        >= (TINY["scenes"] | {"images": 3, "data": "scenes"}).items()
    )
    assert (
        model.metrics["training"]["epoch"] in (1, 2)
        and model.search["max_words"] == 6
    )
    assert (
        load_file(tmp_path / "toy" / "model.safetensors")[
            "decoder.fc.bias"
        ].dtype.itemsize
        == 2
    )


def test_what_a_recipe_needs_is_said(tmp_path):
    to = tmp_path / "model"
    for name in ("flickr8k", "flickr30k", "coco"):
        line = refused("train", "--recipe", name, "--to", to)
        assert f"captionlib download {name}" in line and "--captions" in line
    assert "--captions" in refused("train", "--to", to)
    assert "--images" in refused(
        "train", "--to", to, "--karpathy-json", "x.json"
    )
    line = refused("train", "--recipe", "flickr9k", "--to", to)
    assert "coco, coco-original, flickr30k, flickr8k, shipped, toy" in line
    line = refused(
        "train", "--data", tmp_path, "--images", tmp_path, "--to", to
    )
    assert "leave out" in line
    line = refused("train", "--recipe", "toy", "--to", to, "--epochs", 0)
    assert "--epochs: must be at least 1" in line
    assert not to.exists()
