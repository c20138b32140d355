"""The page "Train on your own data": its commands run, and its experiment."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from captionlib.config import Recipe, SplitConfig
from captionlib.engine import evaluate_split, train_recipe
from captionlib.io.files import read_json
from captionlib.model import CaptionModel
from captionlib.toy.scenes import write_scenes
from tools.experiments import __main__ as experiments
from tools.experiments import own_data

PAGE = Path(__file__).parent.parent / "book" / "own_data.md"
BLOCK = re.compile(r"```(bash|python|text)\n(.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def commands(kind: str, text: str) -> list[str]:
    if kind == "python":
        return [text]
    return text.replace("\\\n", " ").strip().splitlines()


def run(kind: str, code: str, folder: Path) -> str:
    """Run one block as a reader would; return what it prints."""
    program = [sys.executable]
    program += ["-c", code] if kind == "python" else ["-m", "captionlib.cli"]
    if kind == "bash":
        code = code.replace("--epochs 15", "--epochs 3")
        program += shlex.split(code.strip().removeprefix("captionlib "))
    done = subprocess.run(
        program,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr.replace("captionlib: ", "") + done.stdout
    return " ".join(said.split()) + " "


@pytest.mark.long
def test_the_page_goes_from_a_spreadsheet_to_a_fine_tuned_captioner(tmp_path):
    printed, files = "", ""
    for kind, text in blocks():
        if kind != "text":
            for command in commands(kind, text):
                printed += run(kind, command, tmp_path)
            if (table := tmp_path / "captions.csv").exists():
                files = table.read_text(encoding="utf-8")
        else:  # the beginning of a file, or what a command printed
            assert text in files or " ".join(text.split()) in printed
    before, after = (
        read_json(tmp_path / f"{name}.json") for name in ("before", "after")
    )
    assert before.keys() == after.keys() and len(after) == 6
    words = {word for caption in after.values() for word in caption}
    assert words - {word for caption in before.values() for word in caption}
    assert (tmp_path / "seen.png").stat().st_size > 10_000


@pytest.mark.skipif(
    "FLICKR8K_DIR" not in os.environ, reason="needs Flickr8k's photographs"
)
@pytest.mark.long
def test_the_experiment_runs_and_goes_on_where_it_stopped(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(own_data, "CHOOSE", 4)
    monkeypatch.setattr(own_data, "SCORE", 4)
    monkeypatch.setattr(own_data, "SIZES", (8,))
    flickr8k = Path(os.environ["FLICKR8K_DIR"])
    command = ["own_data", "--quick", "--draws", "2", "--work", str(tmp_path)]
    command += ["--karpathy-json", str(flickr8k / "dataset_flickr8k.json")]
    command += ["--images", str(flickr8k / "Flicker8k_Dataset")]
    command += ["--store", str(tmp_path / "stored.json")]
    assert experiments.main(command) == 0
    first = (tmp_path / "stored.json").read_bytes()
    (tmp_path / "shipped-1.json").write_text(
        '{"bleu4": 1, "cider_d": 2, "seconds": 3}'
    )
    assert experiments.main(command) == 0  # nothing is trained again
    again = json.loads((tmp_path / "stored.json").read_text(encoding="utf-8"))
    assert again["result"][1:] == json.loads(first)["result"][1:]
    assert again["result"][0]["runs"][1]["bleu4"] == 1


def test_a_draw_shares_out_each_image_once():
    images = [{"filename": str(i)} for i in range(1000)]
    small, large = (own_data.draw(images, 3, size) for size in (50, 600))
    names = [image["filename"] for image in large]
    assert len(set(names)) == len(names) == 1000

    def of(entries, split):
        return [e["filename"] for e in entries if e["split"] == split]

    assert of(large, "train")[:50] == of(small, "train")
    assert (
        of(large, "test") == of(small, "test") and len(of(small, "test")) == 250
    )
    assert of(large, "val") == of(small, "val") and len(of(small, "val")) == 150
    assert of(own_data.draw(images, 4, 50), "test") != of(small, "test")


def test_scores_on_images_of_the_training_are_named(tmp_path):
    """By their pixels: another split, another file of captions, a renamed copy."""
    scenes = write_scenes(tmp_path / "scenes", train=6, val=3, test=3, seed=1)
    images, captions = scenes.parent / "images", tmp_path / "captions.tsv"
    rows = [
        f"{image['filename']}\t{image['sentences'][0]['raw']}"
        for image in read_json(scenes)["images"]
    ]
    captions.write_text("\n".join(["file\tcaption", *rows]), encoding="utf-8")
    small = {"attention_dim": 8, "embed_dim": 8, "decoder_dim": 8}
    shares = {"val_share": 0.25, "test_share": 0.25}
    model = tmp_path / "model"
    train_recipe(
        Recipe(data={"min_word_freq": 1}),
        to=model,
        captions=str(captions),
        images=str(images),
        epochs=1,
        progress=False,
        say=lambda line: None,
        **small,
        **shares,
    )

    def remarks(split="test", seed=0, of=model):
        done = evaluate_split(
            captions,
            images,
            split,
            shares=SplitConfig(**shares, split_seed=seed),
            model=str(of),
            progress=False,
        )
        said = [r for r in done.remarks if "in the captioner's training" in r]
        assert len(said) == ("trained_on" in done.about["data"])
        return said

    assert not remarks() and not remarks("val") and not remarks("train")
    (said,) = [each for seed in (1, 2) if (each := remarks(seed=seed))][:1]
    assert "of 3 images were" in said[0]
    for path in sorted(images.iterdir()):
        path.rename(images / f"copy_{path.name}")
    captions.write_text(
        captions.read_text(encoding="utf-8").replace("\n", "\ncopy_"),
        encoding="utf-8",
    )
    assert sum(bool(remarks(seed=seed)) for seed in range(3)) >= 1
    grown = tmp_path / "grown"  # what it started from counts, too
    CaptionModel.load(model).save(grown)
    assert CaptionModel.load(grown).trained_on
    assert len(CaptionModel.load(grown).trained_on) == 6


def test_fine_tuning_that_spoils_a_captioner_is_said(tmp_path):
    scenes = write_scenes(tmp_path / "scenes", train=4, val=4, test=1, seed=2)
    said: list[str] = []
    train_recipe(
        to=tmp_path / "model",
        captions=str(scenes),
        images=str(scenes.parent / "images"),
        start_from="toy",
        epochs=1,
        learning_rate=0.9,
        progress=False,
        say=said.append,
    )
    place = said.index("toy, before training:")
    before, after = (
        float(re.match(r"BLEU-4 ([\d.]+), CIDEr-D", line)[1])
        for line in said[place + 1 : place + 3]
    )
    assert after < before
    model = tmp_path / "model"
    assert said[-2].startswith(f"{model}: no epoch reached BLEU-4 {before:.2f}")
    assert said[-1] == f"{model / 'best'}: epoch 1, BLEU-4 {after:.2f}"
