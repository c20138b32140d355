"""Data, caches and checkpoints know what they were made of, and a folder has one owner.

Reports of other tools, which this one had in common with them, give the tests their names.
"""

import contextlib
import io
import multiprocessing
import os
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from trees import flickr_tree

from captionlib import cli, data
from captionlib.config import DataConfig
from captionlib.encoder import Encoder
from captionlib.engine.preparation import prepare
from captionlib.engine.views import write_crops
from captionlib.io.claims import claim
from captionlib.io.features import Features, new_features
from captionlib.io.files import InputError, read_json, write_json
from captionlib.io.identity import difference, of_data, of_features, source_of

SIZES = ["--attention-dim", 8, "--embed-dim", 8, "--decoder-dim", 8]
SIZES += ["--image-size", 64, "--max-words", 6, "--batch-size", 4]
CONFIG = DataConfig(min_word_freq=1, max_len=10)
RARE = DataConfig(min_word_freq=16, max_len=10)
FORK = multiprocessing.get_context("fork")


def call(*words) -> tuple[int, str, str]:
    """The command in this process: status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([str(word) for word in words])
    return status, out.getvalue(), err.getvalue()


def train(to, *words) -> str:
    status, out, err = call("train", "--to", to, *SIZES, *words)
    assert (status, err) == (0, "")
    return out


def refused(*words) -> str:
    status, _, err = call("train", *words)
    assert (status, err.count("\n")) == (2, 1), err
    return err


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Two data sets of the same photographs: B's captions are A's, reversed."""
    folder = tmp_path_factory.mktemp("trees")
    first, images = flickr_tree(folder, train=8)
    stored = read_json(first)
    for image in stored["images"]:
        for sentence in image["sentences"]:
            sentence["tokens"].reverse()
    write_json(folder / "B.json", stored)
    return {"A": (first, images), "B": (folder / "B.json", images)}


@pytest.fixture(scope="module")
def prepared(trees, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for name in trees:
        prepare(*trees[name], folder / name, CONFIG, progress=False)
    prepare(*trees["A"], folder / "rare", RARE, progress=False)
    return folder


@pytest.fixture
def own(prepared, tmp_path):
    """Data A in a folder of the test's own."""
    return Path(shutil.copytree(prepared / "A", tmp_path / "own"))


def given(tree) -> list:
    return ["--karpathy-json", tree[0], "--images", tree[1]]


# ---------------------------------------------------------------------------- what it is


def test_one_function_says_how_two_identities_differ():
    one = {"words": "sha256:1", "images": "sha256:2", "seed": 1, "bf16": False}
    assert difference(one, dict(reversed(one.items()))) == ""
    other = {"words": "sha256:3", "images": "sha256:2", "seed": 2}
    assert (
        difference(one, other)
        == "other words, seed 1, not 2, bf16 False, not None"
    )


def test_an_identity_is_that_of_the_contents(trees, prepared, own, tmp_path):
    """Copies, times and the layout of HDF5 are none of it."""
    assert of_data(own) == of_data(prepared / "A")
    data.prepare(*trees["A"], tmp_path / "plain", CONFIG)
    assert of_data(tmp_path / "plain") == of_data(own)
    told = difference(of_data(own), of_data(prepared / "B"))
    assert told == "other training captions, other validation captions"
    told = difference(of_data(own), of_data(prepared / "rare"))
    assert told == "other words, other training captions"


def test_a_changed_pixel_changes_it_even_if_no_time_tells(own):
    path = data.image_file(own, "TRAIN")
    before, stat = of_data(own), path.stat()
    with h5py.File(path, "r+") as file:
        file["images"][3, 0, 0, 0] ^= 1
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert difference(before, of_data(own)) == "other training images"


def test_prepared_data_know_their_source_until_they_are_replaced(trees, own):
    stored = source_of(own)
    assert (
        stored.items() >= {"min_word_freq": 1, "max_len": 10, "seed": 0}.items()
    )
    assert difference(stored, source_of(own)) == ""
    data.prepare(*trees["B"], own, CONFIG)  # the plain form stores no source
    assert source_of(own) is None


# ------------------------------------------------------------------------ other data


@pytest.fixture(scope="module")
def begun(prepared, tmp_path_factory):
    to = tmp_path_factory.mktemp("begun") / "m"
    features = ["--features", to.parent]
    train(to, "--data", prepared / "A", "--epochs", 1, *features)
    return to


@pytest.mark.parametrize("other, said", [
    ("B", "other training captions"),
    ("rare", "other words, other training captions (min_word_freq 1, not 16)"),
])  # fmt: skip
def test_report_yunjey_167_resuming_on_other_data_is_refused(
    begun, prepared, other, said
):
    before = (begun / "last" / "model.safetensors").read_bytes()
    words = [
        "--data",
        prepared / other,
        "--to",
        begun,
        "--resume",
        "--epochs",
        3,
    ]
    assert said in refused(*words)
    assert (begun / "last" / "model.safetensors").read_bytes() == before


def test_report_yunjey_167_a_copy_of_the_data_is_the_same_data(
    begun, own, tmp_path
):
    to = shutil.copytree(begun, tmp_path / "m")
    train(to, "--data", own, "--resume", "--epochs", 2)


def test_a_model_names_the_data_it_was_trained_on(begun, prepared):
    stored = read_json(begun / "best" / "config.json")["metrics"]["training"]
    assert re.fullmatch("[0-9a-f]{8}", stored["data_digest"])
    place = read_json(begun / "last" / "training.json")
    assert place["data"]["contents"] == of_data(prepared / "A")
    assert place["data"]["made_of"] == source_of(prepared / "A")


def test_report_fast_bert_114_a_folder_is_prepared_anew_from_another_source(
    trees, tmp_path
):
    to = tmp_path / "m"
    few = ["--epochs", 1, *SIZES]
    line = refused("--to", to, *given(trees["A"]), "--backbone", "no_such_net")
    assert "no_such_net: no such backbone" in line and not to.exists()
    prepare(
        *trees["A"], to / "data", CONFIG, progress=False
    )  # as far as it came
    out = train(to, *given(trees["B"]), *few)
    assert "other captions" in out and "preparing it anew" in out
    assert list((to / "data").glob("WORDMAP_*")) == [
        to / "data" / "WORDMAP_flickr8k_5_cap_per_img_5_min_word_freq.json"
    ]
    # Once it has begun it keeps to its data.
    line = refused("--to", to, "--resume", *given(trees["A"]))
    assert "was begun with other data (other captions)" in line
    assert "sha256" not in line
    train(to, "--resume", *given(trees["B"]))
    train(to, "--resume")


def test_report_fast_bert_114_a_json_without_val_does_not_block_the_folder(
    trees, tmp_path
):
    stored = read_json(trees["A"][0])
    for image in stored["images"]:
        image["split"] = "train"
    write_json(tmp_path / "none.json", stored)
    to, source = tmp_path / "m", (tmp_path / "none.json", trees["A"][1])
    assert "no images of the split val" in refused("--to", to, *given(source))
    assert not (to / "data").exists()
    prepare(*source, to / "data", CONFIG, progress=False)  # by hand
    assert "no images of the split val" in refused("--to", to)
    out = train(to, *given(trees["A"]), "--epochs", 1)
    assert "preparing it anew" in out


@pytest.mark.parametrize("words, said", [
    (["--last-stages", 99], "--last-stages 99"),
    (["--device", "toaster"], "toaster"),
    (["--start-from", "/no/model"], "/no/model"),
    (["--start-from", "toy", "--embed-dim", 4], "--embed-dim"),
])  # fmt: skip
def test_report_gtad_16_options_are_checked_before_preparing(
    trees, tmp_path, words, said
):
    to = tmp_path / "m"
    assert said in refused("--to", to, *given(trees["A"]), *words)
    assert not to.exists()


# ------------------------------------------------------------------------------ caches


def cached(folder: Path) -> set[Path]:
    return set(folder.glob("*_tf_*.hdf5"))


def test_report_jabs_56_trainings_of_other_settings_keep_their_own_caches(
    own, tmp_path
):
    few = ["--data", own, "--epochs", 1]
    train(tmp_path / "one", *few)
    before = {path: path.read_bytes() for path in cached(own)}
    for more in (["--image-size", 96], ["--bf16"], ["--mirrored"]):
        out = train(tmp_path / more[0].strip("-"), *few, *more)
        assert all(path.read_bytes() == before[path] for path in before)
        if more != ["--mirrored"]:
            assert "also holds" in out and "delete those" in out
    # Two of the first, two of other sizes, one in bfloat16, one mirrored.
    assert len(cached(own)) == 6
    assert "once, to be kept" not in train(tmp_path / "again", *few)


def test_report_jabs_56_a_reader_never_opens_anothers_cache(tmp_path):
    path = tmp_path / "f.hdf5"
    for identity in ({"image_size": 64}, {"image_size": 128}):
        with new_features(path, (2, 1, 1, 4), identity) as vectors:
            vectors[:] = np.ones((2, 1, 4))
        if identity["image_size"] == 64:
            reader = Features(path)
    with pytest.raises(InputError, match="was replaced while it was in use"):
        reader[0]


def test_report_jabs_56_crops_are_those_of_their_images(
    own, prepared, tmp_path
):
    path, crops = data.image_file(own, "TRAIN"), tmp_path / "crops.hdf5"
    write_crops(path, crops)
    before = crops.read_bytes()
    write_crops(path, crops)
    assert crops.read_bytes() == before
    write_crops(path, crops, seed=1)
    seeded = crops.read_bytes()
    assert seeded != before
    with h5py.File(path, "r+") as file:
        file["images"][0] = 255 - file["images"][0]
    write_crops(path, crops, seed=1)
    assert crops.read_bytes() != seeded
    crops.write_text("damaged")
    write_crops(path, crops)
    with h5py.File(crops) as file:
        assert len(file["images"]) == 8


def test_the_identity_of_features_holds_all_that_matters(own):
    encoder = Encoder("tf_efficientnet_lite0", grid_size=None, image_size=64)
    path = data.image_file(own, "TRAIN")
    first = of_features(encoder, path)
    assert difference(first, of_features(encoder, path)) == ""
    assert "bf16" in difference(first, of_features(encoder, path, bf16=True))
    assert "mirrored" in difference(
        first, of_features(encoder, path, mirrored=True)
    )
    encoder.image_size = 128
    assert "image_size 64, not 128" in difference(
        first, of_features(encoder, path)
    )
    next(encoder.parameters()).data[0] += 1
    assert "other weights" in difference(first, of_features(encoder, path))


# ------------------------------------------------------------------------------ claims


def hold(folder, kind, shared, ready, leave) -> None:
    with claim(folder, kind, "taken", shared=shared):
        ready.set()
        leave.wait()


@contextlib.contextmanager
def held_elsewhere(folder, kind, *, shared=False):
    """Another process holds a claim; yields it."""
    ready, leave = FORK.Event(), FORK.Event()
    process = FORK.Process(
        target=hold, args=(folder, kind, shared, ready, leave)
    )
    process.start()
    assert ready.wait(60)
    try:
        yield process
    finally:
        if process.is_alive():  # else `set` would wait for it for ever
            leave.set()
            process.join()


def test_report_deepinv_525_a_folder_has_one_training(own, tmp_path):
    to = tmp_path / "both"
    with held_elsewhere(to, "training"):
        line = refused("--data", own, "--to", to)
        assert f"{to}: is being trained into by another process" in line
        assert not (to / "recipe.json").exists()
    train(to, "--data", own, "--epochs", 1)
    assert not list(to.glob(".*"))


def test_report_deepinv_525_a_dead_process_holds_nothing(own, tmp_path):
    with held_elsewhere(tmp_path, "training") as process:
        process.kill()
        process.join()
        with claim(tmp_path, "training", "taken"):
            pass


def test_report_torchtune_481_data_in_use_are_not_replaced(
    trees, own, tmp_path
):
    before = of_data(own)
    with held_elsewhere(own, "data", shared=True):  # as a training does
        with pytest.raises(InputError, match="read by another process"):
            prepare(*trees["B"], own, CONFIG, progress=False)
        train(tmp_path / "m", "--data", own, "--epochs", 1)  # may read, too
    assert of_data(own) == before
    with held_elsewhere(own, "data"):  # as a preparation does
        line = refused("--data", own, "--to", tmp_path / "n")
        assert "is being prepared" in line
    prepare(*trees["B"], own, CONFIG, progress=False)
    assert of_data(own) != before and not list(own.glob(".*"))


def test_a_forked_process_does_not_keep_its_parents_claim(tmp_path):
    leave = FORK.Event()
    with claim(tmp_path, "training", "taken"):
        child = FORK.Process(target=leave.wait)
        child.start()
    with claim(tmp_path, "training", "taken"):
        leave.set()
    child.join()


def test_the_last_reader_sweeps_up(tmp_path):
    with claim(tmp_path, "data", "taken", shared=True):
        with claim(tmp_path, "data", "taken", shared=True):
            pass
        with pytest.raises(InputError, match="taken"):
            with claim(tmp_path, "data", "taken"):
                pass
    assert not list(tmp_path.iterdir())
