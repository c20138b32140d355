"""The captioner that comes with the package: whole, small, offline, and scored as its card says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from captionlib import Captioner
from captionlib.captioner import SHIPPED
from captionlib.io.files import ASSETS, read_json

PHOTOGRAPH = ASSETS / "photograph.jpg"
KEYS = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d")


@pytest.fixture(scope="module")
def captioner():
    return Captioner.from_pretrained()


@pytest.fixture(scope="module")
def stored():
    return read_json(SHIPPED / "config.json")


def test_it_is_small_and_holds_what_a_model_folder_holds():
    files = {path.name: path.stat().st_size for path in SHIPPED.iterdir()}
    model = {"config.json", "vocabulary.json"}
    model |= {"model.safetensors", "trained_on.safetensors"}
    assert files.keys() == model | {"README.md", "LICENSE-encoder"}
    assert sum(files.values()) < 25e6


def test_it_never_says_unknown_and_its_words_come_from_the_train_split(
    captioner, stored
):
    assert captioner.search.forbid_unk
    data = stored["metrics"]["validation"]
    assert data["data"].startswith("flickr8k_") and data["split"] == "VAL"
    assert data["images"] == 1000 and stored["metrics"]["recipe"]["seed"] >= 0
    for name in KEYS:
        low, high = data["intervals"][name]
        assert low < data[name] < high


def test_a_caption_of_the_packaged_photograph(captioner):
    caption = captioner.caption(PHOTOGRAPH)
    assert caption.finished and 3 <= len(caption.words) <= 30
    assert "<unk>" not in caption.words
    assert caption.alphas.shape == (len(caption.words), 9, 9)
    together = captioner.caption_batch([PHOTOGRAPH, PHOTOGRAPH])
    for one in together:
        assert one.words == caption.words
        np.testing.assert_allclose(one.alphas, caption.alphas, atol=1e-4)


def test_it_runs_where_nothing_can_be_reached_or_written(tmp_path):
    """A real second process: no network, an empty home, another folder."""
    command = [
        sys.executable,
        "-m",
        "captionlib.cli",
        "caption",
        str(PHOTOGRAPH),
        "--json",
    ]
    cut = ["unshare", "--user", "--net", "--map-root-user"]
    if subprocess.run([*cut, "true"], capture_output=True).returncode:
        cut = []  # where namespaces are forbidden, the variables below have to do
    environment = os.environ | {
        "HOME": str(tmp_path),
        "TORCH_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    done = subprocess.run(
        [*cut, *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (
        said["text"] == " ".join(said["words"])
        and said["finished"]
        and done.stderr == ""
    )


def test_the_card_says_what_the_package_holds(stored):
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    scores = stored["metrics"]["validation"]
    for name in ("bleu4", "cider_d"):
        low, high = scores["intervals"][name]
        assert (
            f"{scores[name]:.2f}" in card and f"{low:.1f} to {high:.1f}" in card
        ), name
    for section in (
        "Data and its terms",
        "Training",
        "What it gets wrong",
        "must not be used",
    ):
        assert section in card


@pytest.mark.long
@pytest.mark.skipif(
    "FLICKR8K_DIR" not in os.environ,
    reason="Flickr8k's terms keep its photographs out of git",
)
def test_evaluate_reproduces_the_card(stored):
    """The whole validation split through the command line."""
    folder = Path(os.environ["FLICKR8K_DIR"])
    command = [
        sys.executable,
        "-m",
        "captionlib.cli",
        "evaluate",
        "--split",
        "val",
        "--json",
    ]
    command += ["--karpathy-json", str(folder / "dataset_flickr8k.json")]
    command += ["--images", str(folder / "Flicker8k_Dataset")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result, expected = json.loads(done.stdout), stored["metrics"]["validation"]
    assert result["images"] == expected["images"]
    for name in KEYS:  # other processors and thread counts round differently, and a few ties flip
        assert result[name] == pytest.approx(expected[name], abs=0.1), name
