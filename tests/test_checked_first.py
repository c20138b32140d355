"""Options, outputs and bad items: checked before the work, said in one line."""

import contextlib
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from captionlib import Captioner, cli
from captionlib.cli import arguments
from captionlib.config import (
    CaptionConfig,
    DataConfig,
    DecodingConfig,
    EngineConfig,
    ExportConfig,
    ModelConfig,
    ReadingConfig,
    RunConfig,
    ScenesConfig,
    SplitConfig,
    ViewConfig,
    WordsConfig,
)
from captionlib.config.settings import range_in_words, settings_of, value_types
from captionlib.engine import evaluate_split
from captionlib.engine.recipes import read_recipe
from captionlib.io.files import (
    ASSETS,
    InputError,
    check_output,
    package_folder,
    read_json,
)
from captionlib.model import CaptionModel
from captionlib.scoring import meteor
from tests.small_training import make_model

COLOURS = ["red", "green", "blue", "gold", "grey", "pink"]


def call(*words) -> tuple[int, str, str]:
    """The command in this process: status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([str(word) for word in words])
    return status, out.getvalue(), err.getvalue()


def refused(*words) -> str:
    """The one line with which the command refuses."""
    status, out, err = call(*words)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    return err


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """An untrained captioner, which prefers the empty caption."""
    folder, model = tmp_path_factory.mktemp("stored") / "model", make_model()
    with torch.no_grad():
        model.decoder.fc.bias[model.vocabulary.end] += 30
    model.search = {"beam_size": 3, "max_words": 6, "min_words": 0}
    model.save(folder / "best")
    return folder


@pytest.fixture
def data(tmp_path) -> dict:
    """Six photographs for training and six for testing."""
    (tmp_path / "images").mkdir()
    entries = []
    for split in ("train", "test"):
        for number, colour in enumerate(COLOURS):
            name = f"{split}_{number}.png"
            Image.new("RGB", (40, 30), colour).save(tmp_path / "images" / name)
            tokens = ["a", colour, "wall", f"word{number}"]
            entries.append(
                {
                    "filename": name,
                    "split": split,
                    "sentences": [{"tokens": tokens}],
                }
            )
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"dataset": "walls", "images": entries}))
    return {"json": path, "images": tmp_path / "images"}


def evaluating(data, model, *more) -> list:
    words = ["evaluate", "--karpathy-json", data["json"]]
    words += ["--images", data["images"], "--split", "test", "--model", model]
    return [*words, *more]


def preparing(data, to) -> list:
    words = ["prepare", "--karpathy-json", data["json"], "--to", to]
    return [*words, "--images", data["images"], "--min-word-freq", 1]


# ---------------------------------------------------------------- which captioner


def test_report_datasets_5228_the_users_own_folder_comes_first(
    stored, data, tmp_path, monkeypatch
):
    photo = data["images"] / "test_0.png"
    monkeypatch.chdir(tmp_path)
    for name in ("toy", "flickr8k"):
        packaged = package_folder(name)
        assert packaged == ASSETS / name
        shutil.copytree(stored, name)
        own = Path(name)
        assert package_folder(name) == own / "best"
        assert CaptionModel.load(name).search["max_words"] == 6
        assert Captioner.from_pretrained(name).search.max_words == 6
        answers = [
            call("caption", photo, "--model", model)
            for model in (name, f"./{name}", stored)
        ]
        assert answers[0] == answers[1] == answers[2]
        # A part of one: neither answers in the other's place.
        (own / "best" / "config.json").unlink()
        said = refused("caption", photo, "--model", name)
        assert f"{name}: holds only a part" in said and str(packaged) in said
        shutil.rmtree(own)
        # A data set of that name is no captioner.
        (own / "images").mkdir(parents=True)
        assert package_folder(name) == packaged


def test_report_datasets_5228_the_users_own_recipe_comes_first(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert read_recipe("toy").scenes
    Path("toy").write_text(json.dumps({"stages": [{"epochs": 3}]}))
    assert read_recipe("toy").stages == [{"epochs": 3}]


def test_no_other_folder_of_the_package_is_a_captioner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="^recipes: holds no captioner"):
        package_folder("recipes")


def test_report_habapp_49_the_folder_one_is_in_is_a_model(
    stored, data, monkeypatch
):
    photo = data["images"] / "test_0.png"
    expected = call("caption", photo, "--model", stored)
    assert expected[0] == 0
    for place, model in (
        (stored, "."),
        (stored / "best", "."),
        (stored / "best", ".."),
    ):
        monkeypatch.chdir(place)
        assert call("caption", photo, "--model", model) == expected
    assert not [p for p in stored.parent.iterdir() if p.name.startswith(".")]


# --------------------------------------------------------------- the empty caption


def test_report_subhamio_3_a_caption_has_a_word(stored, data, tmp_path):
    photo = data["images"] / "test_0.png"
    assert Captioner.from_pretrained(stored).caption(photo).words == []
    words = ["caption", photo, "--json", "--model", stored]

    def written(*options):
        status, out, _ = call(*words, *options)
        assert status == 0
        return json.loads(out)["words"]

    assert len(written()) == 1
    assert len(written("--min-words", 4)) >= 4
    assert written("--min-words", 0) == []
    results, captions = tmp_path / "results.json", tmp_path / "captions.json"
    saving = ["--save-results", results, "--save-captions", captions]
    for options, fewest in ([], 1), (["--min-words", 3], 3):
        assert call(*evaluating(data, stored, *saving, *options))[0] == 0
        assert all(len(w) >= fewest for w in read_json(captions).values())
        assert read_json(results)["search"]["min_words"] == fewest


def test_length_normalisation_can_be_chosen(stored, data, tmp_path):
    results = tmp_path / "results.json"
    words = evaluating(data, stored, "--save-results", results)
    assert call(*words, "--length-normalisation", 0.7)[0] == 0
    search = read_json(results)["search"]
    assert search["length_normalisation"] == 0.7
    assert (search["beam_size"], search["max_words"]) == (3, 6)


def test_a_length_that_the_model_rules_out_is_said(stored, data):
    photo = data["images"] / "test_0.png"
    said = refused("caption", photo, "--model", stored, "--min-words", 7)
    assert "--min-words 7: not with this model" in said and "6" in said


def test_stored_settings_write_the_same_captions():
    """The packaged captioners': a word at least changes none of them."""
    photo = ASSETS / "photograph.jpg"
    for name in ("toy", "flickr8k"):
        expected = Captioner.from_pretrained(name).caption(photo)
        found = json.loads(call("caption", photo, "--model", name, "--json")[1])
        assert found["words"] == expected.words
        assert found["log_prob"] == expected.log_prob


# -------------------------------------------------------------------- bad items


def test_report_neuraltalk2_206_a_bad_image_costs_no_captions(
    stored, data, tmp_path
):
    captions = tmp_path / "captions.json"
    expected = evaluate_split(
        data["json"], data["images"], "test", model=stored, progress=False
    ).captions
    damaged = data["images"] / "test_4.png"
    damaged.write_bytes(b"\x89PNG damaged")
    words = evaluating(data, stored, "--save-captions", captions)
    words += ["--batch-size", 2]
    said = refused(*words)
    assert str(damaged) in said and "evaluate --skip-bad" in said
    kept = read_json(captions)
    assert len(kept) >= 4 and kept.items() <= expected.items()
    status, out, err = call(*words, "--skip-bad", "--json")
    assert status == 2 and json.loads(out)["images"] == 5
    named, counted = err.splitlines()
    assert "skipped" in named and str(damaged) in named
    assert "left out 1" in counted
    del expected["test_4.png"]
    assert read_json(captions) == expected


def test_report_neuraltalk2_206_what_prepare_skips_evaluate_skips(
    stored, data, tmp_path
):
    (data["images"] / "test_1.png").write_text("not an image")
    (data["images"] / "test_2.png").unlink()
    entries = read_json(data["json"])
    entries["images"][-1]["sentences"].append({"tokens": []})
    data["json"].write_text(json.dumps(entries))
    prepared = call(*preparing(data, tmp_path / "prepared"), "--skip-bad")
    evaluated = call(*evaluating(data, stored, "--json"), "--skip-bad")
    assert prepared[0] == evaluated[0] == 2
    for _, _, err in (prepared, evaluated):
        for bad in ("test_1.png", "test_2.png", "caption 1 has no tokens"):
            assert err.count(bad) == 1
        assert "left out 3" in err.splitlines()[-1]
    references = read_json(
        tmp_path
        / "prepared/REFERENCES_walls_5_cap_per_img_1_min_word_freq.json"
    )
    assert json.loads(evaluated[1])["images"] == 4 == len(references["TEST"])


def test_missing_images_are_said_before_any_is_read(stored, data, monkeypatch):
    (data["images"] / "test_5.png").unlink()
    monkeypatch.setattr(
        "captionlib.engine.captioning.open_rgb",
        lambda path: pytest.fail(f"{path} was read"),
    )
    said = refused(*evaluating(data, stored))
    assert "test_5.png" in said and "--skip-bad" in said


def test_a_split_without_one_good_image_is_refused(stored, data):
    for path in data["images"].glob("test_*"):
        path.write_text("not an image")
    said = refused(*evaluating(data, stored, "--skip-bad"))
    assert "no readable image of test" in said


def test_captions_are_written_before_they_are_scored(
    stored, data, tmp_path, monkeypatch
):
    captions = tmp_path / "captions.json"

    def scoring(*_):
        raise MemoryError(f"{len(read_json(captions))} captions")

    monkeypatch.setattr("captionlib.metrics.score", scoring)
    words = evaluating(data, stored, "--save-captions", captions)
    status, _, err = call(*words)
    assert status == 1 and "6 captions" in err


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to a process there")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_evaluation_keeps_its_captions(
    how, stored, data, tmp_path
):
    """The fourth image never arrives: it is a pipe that nobody writes to."""
    captions, pipe = tmp_path / "captions.json", data["images"] / "test_3.png"
    code = (
        "import os, signal, sys; from captionlib import cli\n"
        "from captionlib.engine import captioning, evaluation\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "evaluation.SECONDS, read = 0, captioning.open_rgb\n"
        f"captioning.open_rgb = lambda p: open({str(tmp_path / 'fifo')!r})"
        f" if p.name == {pipe.name!r} else read(p)\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    os.mkfifo(tmp_path / "fifo")
    words = evaluating(data, stored, "--save-captions", captions)
    words += ["--batch-size", 1]
    running = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stderr=subprocess.PIPE
    )
    patience = time.monotonic() + 60
    while time.monotonic() < patience and not (
        captions.exists() and len(read_json(captions)) == 3
    ):
        time.sleep(0.05)
    running.send_signal(how)
    running.communicate(timeout=60)
    assert running.returncode == (130 if how == signal.SIGINT else -how)
    assert sorted(read_json(captions)) == [f"test_{n}.png" for n in range(3)]


def test_caption_counts_what_it_leaves_out(stored, data, tmp_path):
    good = [data["images"] / f"test_{number}.png" for number in range(3)]
    words = ["caption", good[0], tmp_path / "gone.png", good[1]]
    words += [tmp_path, good[2], "--model", stored, "--batch-size", 2]
    status, out, err = call(*words)
    assert status == 2 and len(out.splitlines()) == 3
    first, second = err.splitlines()
    assert "gone.png" in first and first.endswith("(1 of 5 images left out)")
    assert "is a folder" in second
    assert second.endswith("(2 of 5 images left out)")


# ------------------------------------------------------------------- one image


def test_report_coco_caption_9_one_image_has_no_cider_d(stored, data):
    entries = read_json(data["json"])
    entries["images"] = entries["images"][:7]
    data["json"].write_text(json.dumps(entries))
    status, out, err = call(*evaluating(data, stored))
    assert status == 0 and err.count("\n") == 1
    assert "CIDEr-D is 0 whatever the caption" in err
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert "needs several images" in rows["cider_d"]
    assert "interval" not in out.replace("no interval", "")
    status, out, err = call(*evaluating(data, stored, "--json"))
    result = json.loads(out)
    assert result["cider_d"] == 0 and len(result["intervals"]) == 6
    assert "CIDEr-D is 0 whatever the caption" in err


def test_report_pycocoevalcap_18_equal_captions_have_no_cider_d(stored, data):
    assert call(*evaluating(data, stored))[2] == ""
    entries = read_json(data["json"])
    for entry in entries["images"]:
        entry["sentences"] = [{"tokens": ["a", "wall"]}]
    data["json"].write_text(json.dumps(entries))
    status, _, err = call(*evaluating(data, stored))
    assert status == 0 and "CIDEr-D is 0 whatever the caption" in err


# --------------------------------------------------------------------- outputs


@pytest.fixture
def unread(monkeypatch):
    """No image may be read in this test."""
    monkeypatch.setattr(
        "captionlib.engine.captioning.open_rgb",
        lambda path: pytest.fail(f"{path} was read"),
    )


@pytest.mark.skipif(os.name == "nt", reason="no named pipes there")
@pytest.mark.parametrize("option", ["--save-captions", "--save-results"])
def test_outputs_of_evaluate_are_checked_first(
    option, stored, data, tmp_path, unread
):
    (tmp_path / "file").write_text("")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, said in {
        tmp_path: "is a folder",
        tmp_path / "file" / "x.json": "can't be written",
        tmp_path / ("x" * 300 + ".json"): "can't be written",
        pipe: "is not a regular file",
        data["json"]: "is named twice",
        "": "must name a file",
    }.items():
        assert said in refused(*evaluating(data, stored, option, path))
    both = ["--save-captions", tmp_path / "x", "--save-results", tmp_path / "x"]
    assert "is named twice" in refused(*evaluating(data, stored, *both))


def test_outputs_of_caption_are_checked_first(stored, data, tmp_path, unread):
    photos = sorted(data["images"].glob("test_*"))
    bytes_before = photos[0].read_bytes()
    (tmp_path / "file.png").write_text("")
    for path, said in {
        tmp_path: "is a folder",
        tmp_path / "seen.docx": "not a picture format",
        tmp_path / "seen": "not a picture format",
        tmp_path / "file.png" / "seen.png": "can't be written",
        photos[0]: "is a photograph to caption",
    }.items():
        words = ["caption", photos[0], "--model", stored, "--save-figure", path]
        assert said in refused(*words)
    words = ["caption", *photos, "--model", stored, "--save-figure"]
    assert "is a file" in refused(*words, tmp_path / "file.png")
    assert "is a photograph" in refused(*words, data["images"])
    assert photos[0].read_bytes() == bytes_before


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder_is_said(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="change its permissions"):
        check_output(tmp_path / "new" / "x.json")


def test_a_missing_folder_is_no_fault(tmp_path):
    check_output(tmp_path / "new" / "folder" / "x.json")
    assert not (tmp_path / "new").exists()


def test_meteors_needs_are_checked_first(
    stored, data, tmp_path, monkeypatch, unread
):
    words = evaluating(data, stored, "--meteor")
    if os.name != "nt":  # a java that doesn't start, as on a new Mac
        java = tmp_path / "java"
        java.write_text("#!/bin/sh\nexit 1\n")
        java.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "check that java -version works" in refused(*words)
    monkeypatch.setattr(meteor, "meteor_command", list)
    entries = read_json(data["json"])
    entries["images"][-1]["sentences"] = [{"tokens": ["a|||b"]}]
    data["json"].write_text(json.dumps(entries))
    assert "METEOR can't read 'a|||b'" in refused(*words)


# ---------------------------------------------------------------------- ranges

KINDS = {
    "scenes": [ScenesConfig],
    "prepare": [DataConfig, ReadingConfig, SplitConfig, WordsConfig],
    "train": [RunConfig, ModelConfig, EngineConfig, ViewConfig, DecodingConfig],
    "evaluate": [CaptionConfig, SplitConfig],
    "caption": [CaptionConfig],
    "export": [ExportConfig],
}
REST = {
    "scenes": ["--to", "t"],
    "prepare": ["--karpathy-json", "j", "--images", "i", "--to", "t"],
    "train": ["--to", "t"],
    "evaluate": ["--karpathy-json", "j", "--images", "i", "--split", "test"],
    "caption": ["photo.png"],
    "export": ["--to", "t"],
}
SETTINGS = [
    (command, kind, name)
    for command, kinds in KINDS.items()
    for kind in kinds
    for name in settings_of(kind)
]


def outside(each) -> list[float]:
    """Values just outside the range."""
    bounds = each.metadata
    values = [bounds["at_least"] - 1] if "at_least" in bounds else []
    values += [bounds["at_most"] + 1] if "at_most" in bounds else []
    return values + [bounds[n] for n in ("above", "below") if n in bounds]


@pytest.mark.parametrize("command, kind, name", SETTINGS)
def test_report_ranges_a_setting_out_of_range_is_one_line(command, kind, name):
    each, types = settings_of(kind)[name], value_types(kind, name)
    parse = arguments.make_parser().parse_args
    words = [command, *REST[command]]
    option = "--" + name.replace("_", "-")
    numeric = bool({int, float} & set(types))
    texts = ["", " "] if bool not in types else []
    if numeric:
        texts += ["nan", "inf", "-inf", "1e999", "-1e999", "text", "1,5"]
        texts += map(str, outside(each))
        assert range_in_words(each.metadata), "a number without a range"
    for text in texts:
        with pytest.raises(InputError) as error:
            parse([*words, f"{option}={text}"])
        said = str(error.value)
        assert option in said and "must be" in said and "\n" not in said
    for text in ["9" * 400, f"-{'9' * 400}", "1e308"] if numeric else []:
        with contextlib.suppress(InputError):
            value = getattr(parse([*words, f"{option}={text}"]), name)
            assert isinstance(value, int) or math.isfinite(value)


@pytest.mark.parametrize("kind", sorted({k for _, k, _ in SETTINGS}, key=str))
def test_report_ranges_classes_refuse_what_is_not_a_finite_number(kind):
    for name, each in settings_of(kind).items():
        if {int, float} & set(value_types(kind, name)):
            for value in (math.nan, math.inf, -math.inf, "3", *outside(each)):
                with pytest.raises(ValueError, match=f"^{name} must be"):
                    kind(**{name: value})


@pytest.mark.parametrize("name", settings_of(CaptionConfig))
def test_report_ranges_captioning_at_the_ends_of_each_range(
    name, stored, data, tmp_path
):
    """A caption, or one line and status 2; never an inner message."""
    bounds = settings_of(CaptionConfig)[name].metadata
    ends = {"at_least", "at_most"} & bounds.keys()
    texts = [str(bounds[end]) for end in ends] or [""]
    texts += ["9" * 400, "nonsense", "cuda:99", "meta", "/", "~", "."]
    photo = data["images"] / "test_0.png"
    for text in texts:
        words = ["caption", photo, "--model", stored]
        status, out, err = call(*words, "--" + name.replace("_", "-"), text)
        assert (status, out.count("\n"), err.count("\n")) in (
            (0, 1, 0),
            (2, 0, 1),
        ), (text, err)


@pytest.mark.parametrize("text", ["nonsense", "meta", "cuda:99", "cpu,cpu"])
def test_report_ranges_a_device_is_tried_first(text, data, stored, unread):
    for words in (
        evaluating(data, stored),
        ["caption", data["images"] / "test_0.png", "--model", stored],
    ):
        assert f"--device {text}" in refused(*words, "--device", text)
