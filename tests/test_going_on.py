"""A training goes on with more epochs, more patience or smaller batches, and says so.

What can't go on is refused in one line: other settings, damaged files, read-only folders.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from captionlib.engine.preparation import prepare
from captionlib.io.files import InputError, read_json
from tests.small_training import SETTINGS, run
from tests.test_identity import CONFIG, SIZES, call, refused, train
from tests.trees import flickr_tree

CYCLE = dataclasses.replace(SETTINGS, averaging=0.9)
PLAIN = dataclasses.replace(SETTINGS, schedule="plateau")


def change(settings, **others):
    return dataclasses.replace(settings, **others)


# --------------------------------------------------------------------------- the loop


def test_report_llamafactory_3975_a_training_goes_on_with_more_epochs(tmp_path):
    """As if it had been meant to: a plateau's rate depends on no number of epochs."""
    run(tmp_path / "more", PLAIN)
    run(tmp_path / "more", change(PLAIN, epochs=6), resume=True)
    run(tmp_path / "whole", change(PLAIN, epochs=6))
    for name in ("last/model.safetensors", "last/optimizer.safetensors"):
        more, whole = (tmp_path / f / name for f in ("more", "whole"))
        assert more.read_bytes() == whole.read_bytes()


def test_report_llamafactory_3975_a_training_goes_on_with_more_patience(
    tmp_path,
):
    settings = change(PLAIN, epochs=9, patience=2)
    _, history = run(tmp_path, settings, lambda epoch: -epoch)
    assert len(history) == 3
    patient = change(settings, patience=4)
    _, history = run(tmp_path, patient, lambda epoch: -9, resume=True)
    assert len(history) == 5


@pytest.mark.parametrize("others, said", [
    ({"epochs": 3}, "epochs=4, not 3; resume with more, or the same"),
    ({"patience": 1}, "patience=20, not 1; resume with more, or the same"),
    ({"batch_size": 4}, "batch_size=3, not 4; resume with fewer, or the same"),
    ({"learning_rate": 0.1}, "learning_rate=0.01, not 0.1; resume with the same"),
    ({"averaging": 0.5}, "averaging=0.0, not 0.5"),
])  # fmt: skip
def test_other_changes_are_refused(tmp_path, others, said):
    run(tmp_path, PLAIN)
    with pytest.raises(InputError, match=said):
        run(tmp_path, change(PLAIN, **others), resume=True)


def test_report_llamafactory_3975_smaller_batches_keep_adams_state(tmp_path):
    """The epoch that ran out of memory begins again, from the weights it had reached."""

    def out_of_memory(epoch):
        if epoch == 2:
            raise RuntimeError("out of memory")
        return 1.0

    with pytest.raises(RuntimeError):
        run(tmp_path, CYCLE, out_of_memory, checkpoint_minutes=0)
    place = read_json(tmp_path / "last" / "training.json")
    assert (len(place["history"]), place["so_far"]["steps"]) == (1, 3)
    before = load_file(tmp_path / "last" / "optimizer.safetensors")
    assert before["0.step"] == 6
    smaller = change(CYCLE, batch_size=2, epochs=4)
    _, history = run(tmp_path, smaller, resume=True)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    after = load_file(tmp_path / "last" / "optimizer.safetensors")
    assert after["0.step"] == 6 + 3 * 4  # three epochs of eight images
    assert (
        read_json(tmp_path / "last/training.json")["config"]["batch_size"] == 2
    )


# ------------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Prepared data, and a training of one epoch on them."""
    folder = tmp_path_factory.mktemp("made")
    tree = flickr_tree(folder, train=8)
    prepare(*tree, folder / "data", CONFIG, progress=False)
    options = ["--data", folder / "data", "--averaging", 0.9]
    train(folder / "m", *options, "--epochs", 1, "--schedule", "one_cycle")
    return folder


@pytest.fixture
def model(made, tmp_path):
    return Path(shutil.copytree(made / "m", tmp_path / "m"))


def test_report_llamafactory_3975_the_command_says_what_changes(made, model):
    words = ["--data", made / "data", "--resume"]
    out = train(model, *words, "--epochs", 3, "--batch-size", 2)
    assert f"{model}: goes on with epochs=3, not 1" in out
    assert (
        f"{model}: goes on with batch_size=2, not 4; an unfinished epoch" in out
    )
    assert "will not be those of an uninterrupted run" in out
    assert "one_cycle is stretched over all 3 epochs" in out
    assert "the learning rate goes from 0 to 0.0004 at this point" in out
    # From now on these are its settings.
    status, out, err = call("train", "--to", model, *words)
    assert (status, err) == (0, "") and "goes on" not in out
    assert "batch_size=2, not 4" in refused(
        "--to", model, *words, "--batch-size", 4
    )
    place = read_json(model / "last" / "training.json")
    assert len(place["history"]) == place["config"]["epochs"] == 3


FILES = ["training.json", "config.json", "vocabulary.json", "model.safetensors"]
FILES += ["optimizer.safetensors", "average.safetensors"]


@pytest.mark.parametrize("damage", ["empty", "half", "gone"])
@pytest.mark.parametrize("name", FILES)
def test_report_comfyui_239_a_damaged_checkpoint_is_named(
    made, model, name, damage
):
    path = model / "last" / name
    stored = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "half": stored[: len(stored) // 2]}.get(damage, b"[1]")
    )
    if damage == "gone":
        path.unlink()
    words = ["--data", made / "data", "--to", model, "--resume", "--epochs", 3]
    line = refused(*words)
    assert str(path) in line or str(path.parent) in line and damage == "gone"
    assert "; " in line  # and a cure


def test_report_comfyui_239_moments_of_other_weights_are_refused(made, model):
    path = model / "last" / "optimizer.safetensors"
    shutil.copy(model / "last" / "average.safetensors", path)
    words = ["--data", made / "data", "--to", model, "--resume", "--epochs", 3]
    assert f"{path}: is damaged" in refused(*words)


# --------------------------------------------------------------------- read-only disks


READ_ONLY = "mount --bind {0} {0} && mount -o remount,ro,bind {0} && "


def on_read_only(folder: Path, *words) -> subprocess.CompletedProcess:
    """The command where `folder` can't be written, not even by root."""
    command = [sys.executable, "-m", "captionlib.cli", *map(str, words)]
    script = READ_ONLY.format(folder) + 'exec "$@"'
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
        + [script, "sh", *command],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def may_mount(tmp_path):
    if not shutil.which("unshare"):
        pytest.skip("needs `unshare`")
    tried = READ_ONLY.format(tmp_path) + "true"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*command, tried], capture_output=True).returncode:
        pytest.skip("`unshare --user --mount` is not allowed here")


def test_report_ultralytics_1599_read_only_data_name_the_way_out(
    made, tmp_path, may_mount
):
    data = shutil.copytree(made / "data", tmp_path / "data")
    for cache in data.glob("*_tf_*"):
        cache.unlink()
    to = tmp_path / "m"
    words = ["train", "--data", data, "--to", to, "--epochs", 1, *SIZES]
    done = on_read_only(data, *words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{data}: can't be written" in done.stderr
    assert "--features DIR" in done.stderr
    done = on_read_only(data, *words, "--features", tmp_path / "features")
    assert (done.returncode, done.stderr) == (0, "")
    # Caches that are there already need no writing.
    words[words.index(to)] = tmp_path / "n"
    done = on_read_only(
        made / "data", *words[:1], "--data", made / "data", *words[3:]
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_report_ultralytics_1599_a_read_only_target_is_said_before_preparing(
    made, tmp_path, may_mount
):
    (tmp_path / "full").mkdir()
    source = ["--karpathy-json", made / "dataset_flickr8k.json"]
    source += ["--images", made / "Flicker8k_Dataset"]
    for to in (tmp_path / "full", tmp_path / "full" / "m"):
        done = on_read_only(tmp_path / "full", "train", "--to", to, *source)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert str(to) in done.stderr and "name another folder" in done.stderr
