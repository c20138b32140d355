"""The command line: the whole road on a tiny toy world, and every mistake in one line."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import quantiles
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageChops

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
)
from captionlib.config.settings import range_in_words, settings_of
from captionlib.io.files import ASSETS, InputError, read_json
from captionlib.visualize import show_attention

COMMANDS = [
    "scenes",
    "download",
    "prepare",
    "train",
    "evaluate",
    "caption",
    "convert",
]
SCORES = ["bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d"]


def launch(*words, **options) -> subprocess.CompletedProcess:
    """The command as its own process, as a user runs it."""
    command = [sys.executable, "-m", "captionlib.cli", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, **options
    )


def call(*words) -> tuple[int, str, str]:
    """The command in this process: status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([str(word) for word in words])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """From an empty folder to a trained model, with the commands alone."""
    folder = tmp_path_factory.mktemp("world")
    scenes, karpathy = folder / "toy", folder / "toy" / "dataset_scenes.json"
    steps = [
        [
            "scenes",
            "--to",
            scenes,
            "--train",
            16,
            "--val",
            4,
            "--test",
            5,
            "--seed",
            3,
        ],
        ["prepare", "--karpathy-json", karpathy, "--images", scenes / "images"]
        + [
            "--to",
            folder / "prepared",
            "--min-word-freq",
            1,
            "--max-len",
            20,
            "--workers",
            1,
        ],
        [
            "train",
            "--data",
            folder / "prepared",
            "--to",
            folder / "model",
            "--epochs",
            1,
        ]
        + [
            "--attention-dim",
            16,
            "--embed-dim",
            16,
            "--decoder-dim",
            16,
            "--max-words",
            8,
        ]
        + ["--beam-size", 2],
    ]
    for step in steps:
        done = launch(*step, cwd=folder)
        assert (done.returncode, done.stderr) == (0, ""), step
    return folder


@pytest.fixture
def images(world) -> list[Path]:
    return sorted((world / "toy" / "images").glob("test_*"))


@pytest.fixture
def evaluate_words(world) -> list:
    scenes = world / "toy"
    words = ["evaluate", "--karpathy-json", scenes / "dataset_scenes.json"]
    return words + [
        "--images",
        scenes / "images",
        "--split",
        "test",
        "--model",
        world / "model",
    ]


# ----------------------------------------------------------------------------------- the whole road


def test_road_leaves_a_model_and_its_history(world):
    model = world / "model"
    config = read_json(model / "best" / "config.json")
    given = {"beam_size": 2, "max_words": 8}
    assert config["search"] == asdict(DecodingConfig(**given))
    training = config["metrics"]["training"]
    assert (
        training["split"] == "VAL"
        and training["images"] == 4
        and training["seed"] == 0
    )
    assert training["data"] == "scenes_5_cap_per_img_1_min_word_freq"
    assert {*SCORES} <= training.keys()
    assert (model / "last").is_dir() and (model / "curve.png").is_file()
    assert len((model / "log.jsonl").read_text().splitlines()) == 1


def test_road_encodes_each_image_once(world):
    caches = sorted(
        path.name for path in (world / "prepared").glob("*_FEATURES_*")
    )
    assert [name.split("_")[0] for name in caches] == ["TRAIN", "VAL"]


def test_evaluate_json_is_flat_and_complete(world, evaluate_words):
    done = launch(*evaluate_words, "--json", "--beam-size", "1")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert list(result) == [*SCORES, "images", "intervals"]
    assert result["images"] == 5
    assert list(result["intervals"]) == SCORES
    for name in SCORES:
        low, high = result["intervals"][name]
        assert 0 <= low <= high


def test_caption_goes_on_after_bad_files_and_keeps_the_order(
    world, images, tmp_path
):
    (tmp_path / "text.jpg").write_text("not a picture")
    names = [
        images[0],
        tmp_path / "text.jpg",
        images[1],
        tmp_path / "gone.png",
        images[0],
    ]
    done = launch(
        "caption",
        *names,
        "--model",
        world / "model",
        "--json",
        "--batch-size",
        "2",
    )
    assert done.returncode == 2
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == [
        str(images[k]) for k in (0, 1, 0)
    ]
    assert lines[0] == lines[2]
    for line in lines:
        assert list(line) == ["image", "text", "words", "log_prob", "finished"]
        assert line["text"] == " ".join(line["words"])
    errors = done.stderr.splitlines()
    assert (
        len(errors) == 2 and "text.jpg" in errors[0] and "gone.png" in errors[1]
    )


# -------------------------------------------------------------------------------------- evaluation


def test_evaluate_scores_meteor_where_it_is_asked_for(
    evaluate_words, monkeypatch
):
    from captionlib.scoring import meteor

    rows = np.zeros(
        (5, meteor.COLUMNS)
    )  # what the Java program counts: here every image alike
    rows[:, :6], rows[:, 20:] = [4, 4, 0, 0, 2, 2], [1, 2, 2]
    monkeypatch.setattr(meteor, "meteor_command", lambda: [])
    monkeypatch.setattr(
        meteor, "meteor_statistics", lambda references, hypotheses: rows
    )
    status, printed, _ = call(*evaluate_words, "--json", "--meteor")
    assert status == 0
    result = json.loads(printed)
    assert list(result) == [*SCORES, "images", "intervals", "meteor"]
    assert result["meteor"] == pytest.approx(float(meteor.meteor_of(rows[0])))
    assert result["intervals"]["meteor"] == pytest.approx(
        [result["meteor"]] * 2
    )
    status, printed, _ = call(*evaluate_words, "--meteor")
    assert status == 0 and re.search(r"^meteor +\d", printed, re.MULTILINE)


def test_evaluate_says_at_once_that_meteor_needs_java(
    evaluate_words, monkeypatch, tmp_path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        "captionlib.captioner.Captioner.caption_batch",
        lambda *_: pytest.fail("captions first"),
    )
    status, printed, said = call(*evaluate_words, "--meteor")
    assert (status, printed) == (2, "")
    assert said.count("\n") == 1 and "install a Java runtime" in said


def test_evaluate_captions_each_image_once_against_untouched_references(
    world, evaluate_words, monkeypatch
):
    from captionlib import metrics
    from captionlib.engine import captioning

    captioned, scored = [], []
    open_rgb, score = captioning.open_rgb, metrics.score

    def record_image(path):
        captioned.append(path)
        return open_rgb(path)

    def record_references(references, hypotheses):
        scored.append((references, hypotheses))
        return score(references, hypotheses)

    monkeypatch.setattr(captioning, "open_rgb", record_image)
    monkeypatch.setattr(metrics, "score", record_references)
    assert call(*evaluate_words, "--batch-size", "2")[0] == 0
    entries = read_json(world / "toy" / "dataset_scenes.json")["images"]
    entries = [entry for entry in entries if entry["split"] == "test"]
    assert [path.name for path in captioned] == [
        entry["filename"] for entry in entries
    ]
    [(references, hypotheses)] = scored
    assert references == [
        [s["tokens"] for s in entry["sentences"]] for entry in entries
    ]
    assert len(hypotheses) == len(entries)


def test_evaluate_prints_the_intervals_of_an_independent_bootstrap(
    world, evaluate_words, monkeypatch
):
    """Each resample scored anew by `pycocoevalcap`; CIDEr-D weighs words by all five images."""
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu").Bleu
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge").Rouge
    cider = pytest.importorskip("pycocoevalcap.cider.cider").Cider
    entries = read_json(world / "toy" / "dataset_scenes.json")["images"]
    people = [
        [" ".join(sentence["tokens"]) for sentence in entry["sentences"]]
        for entry in entries
        if entry["split"] == "test"
    ]
    said = [captions[0] for captions in people]  # one as good as a person
    said[1] = " ".join(said[1].split()[:-1])
    said[2] = " ".join(reversed(said[2].split()))
    said[3], said[4] = said[4] + " here", said[3]  # of another scene
    monkeypatch.setattr(
        "captionlib.captioner.Captioner.caption_batch",
        lambda *_: [SimpleNamespace(words=text.split()) for text in said],
    )
    status, printed, _ = call(*evaluate_words, "--batch-size", "5", "--json")
    assert status == 0
    result = json.loads(printed)

    def pair(numbers):
        return (
            {k: people[i] for k, i in enumerate(numbers)},
            {k: [said[i]] for k, i in enumerate(numbers)},
        )

    means = [
        scorer().compute_score(*pair(range(5)))[1] for scorer in (rouge, cider)
    ]
    rng, resamples = np.random.default_rng(0), []
    for _ in range(1000):
        drawn = rng.integers(5, size=5)
        row = bleu(4).compute_score(*pair(drawn), verbose=0)[0]
        row += [np.mean([each[i] for i in drawn]) for each in means]
        resamples.append(row)
    for name, values in zip(SCORES, np.transpose(resamples), strict=True):
        cuts = quantiles(100 * values, n=40, method="inclusive")
        assert cuts[0] < cuts[-1] - 1  # there is something to get wrong
        found = result["intervals"][name]
        assert found == pytest.approx([cuts[0], cuts[-1]], abs=1e-6), name


def test_report_55_90_97_results_are_stored_with_what_made_them(
    world, evaluate_words, tmp_path
):
    results, captions = (
        tmp_path / "new" / "results.json",
        tmp_path / "captions.json",
    )
    options = [
        "--save-results",
        results,
        "--save-captions",
        captions,
        "--beam-size",
        "3",
    ]
    status, printed, _ = call(*evaluate_words, "--json", *options)
    assert status == 0
    stored = read_json(results)
    assert stored["result"] == json.loads(printed)
    assert stored["data"] == {"dataset": "scenes", "split": "test"}
    assert (
        stored["search"]["beam_size"] == 3
        and stored["search"]["max_words"] == 8
    )
    assert stored["training"]["training"]["seed"] == 0
    assert stored["model"]["decoder_dim"] == 16
    assert {"captionlib", "torch", "numpy"} <= stored["versions"].keys()
    assert str(tmp_path) not in results.read_text()  # nothing of this machine
    assert len(read_json(captions)) == 5
    again = call(*evaluate_words, "--json", "--beam-size", "3")
    assert again[1] == printed


def test_evaluate_prints_a_table_for_people(evaluate_words):
    status, out, err = call(*evaluate_words)
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == [*SCORES, "images"]


# ----------------------------------------------------------------------------------------- caption


def test_caption_prints_one_sentence_for_one_image(world, images):
    status, out, err = call(
        "caption", images[0], "--model", world / "model" / "best"
    )
    assert (status, err, out.count("\n")) == (0, "", 1)
    several = call("caption", *images[:2], "--model", world / "model")[
        1
    ].splitlines()
    assert several[0] == f"{images[0]}: {out.strip()}" and several[
        1
    ].startswith(str(images[1]))


def test_beam_size_is_the_beam_alone(world, images, monkeypatch):
    from captionlib import captioner

    seen = []
    write_captions = captioner.write_captions

    def record(decoder, encoder_out, vocabulary, config):
        seen.append(config)
        return write_captions(decoder, encoder_out, vocabulary, config)

    monkeypatch.setattr(captioner, "write_captions", record)
    for extra in ([], ["--beam-size", "4"]):
        assert (
            call("caption", images[0], "--model", world / "model", *extra)[0]
            == 0
        )
    assert [(config.beam_size, config.max_words) for config in seen] == [
        (2, 8),
        (4, 8),
    ]


def test_a_beam_that_the_models_search_rules_out_is_said(
    world, images, tmp_path
):
    stored = (
        shutil.copytree(world / "model" / "best", tmp_path / "grouped")
        / "config.json"
    )
    config = read_json(stored)
    config["search"] |= {"beam_size": 4, "groups": 2}
    stored.write_text(json.dumps(config))
    words = ["caption", images[0], "--model", tmp_path / "grouped"]
    assert call(*words)[0] == call(*words, "--beam-size", "2")[0] == 0
    status, out, err = call(*words, "--beam-size", "3")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "--beam-size 3" in err and "groups must divide" in err


def test_figure_is_a_file_for_one_image_and_a_folder_for_several(
    world, images, tmp_path
):
    model = ["--model", world / "model"]
    assert (
        call(
            "caption", images[0], *model, "--save-figure", tmp_path / "seen.png"
        )[0]
        == 0
    )
    with Image.open(tmp_path / "seen.png") as figure:
        assert figure.width > 300
    twin = tmp_path / "twin" / images[0].name
    twin.parent.mkdir()
    twin.write_bytes(images[1].read_bytes())
    folder = tmp_path / "figures"
    status, _, _ = call(
        "caption", images[0], twin, *model, "--save-figure", folder
    )
    stem = images[0].stem
    assert status == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{stem}.png",
        f"{stem}_2.png",
    ]


def test_caption_reads_each_file_once(world, images, tmp_path):
    opened = []

    def record(event, arguments):
        if event == "open" and str(arguments[0]).endswith(".png"):
            opened.append(Path(arguments[0]).name)

    model = ["--model", world / "model"]
    alone = json.loads(call("caption", images[0], *model, "--json")[1])
    Image.open(images[0]).resize((900, 600)).save(tmp_path / "large.png")
    sys.addaudithook(lambda *event: watching and record(*event))
    watching = True
    words = ["caption", images[0], tmp_path / "large.png", *model, "--json"]
    status, out, _ = call(*words, "--save-figure", tmp_path / "figures")
    watching = False
    first = json.loads(out.splitlines()[0])
    assert status == 0 and first["log_prob"] == pytest.approx(alone["log_prob"])
    assert first["words"] == alone["words"]
    read = [name for name in opened if not name.startswith(".")]
    assert read.count(images[0].name) == read.count("large.png") == 1
    # The picture that is drawn is the one that Python draws from the file.
    captioner = Captioner.from_pretrained(world / "model")
    large = tmp_path / "large.png"
    show_attention(large, captioner.caption(large), to=tmp_path / "seen.png")
    with (
        Image.open(tmp_path / "figures" / "large.png") as drawn,
        Image.open(tmp_path / "seen.png") as expected,
    ):
        assert ImageChops.difference(drawn, expected).getbbox() is None


def test_figure_in_the_wrong_place(world, images, tmp_path):
    model = ["--model", world / "model"]
    status, _, err = call(
        "caption", images[0], *model, "--save-figure", tmp_path
    )
    assert status == 2 and "is a folder" in err
    (tmp_path / "file.png").write_text("")
    words = [
        "caption",
        *images[:2],
        *model,
        "--save-figure",
        tmp_path / "file.png",
    ]
    status, out, err = call(*words)
    assert status == 2 and out == "" and "is a file" in err
    status, _, err = call(
        "caption", images[0], *model, "--save-figure", tmp_path / "seen.docx"
    )
    assert status == 2 and "use a name that ends in" in err


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_report_23_179_any_image_mode(world, images, tmp_path, mode):
    grey = np.asarray(Image.open(images[0]).convert("L"))
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        picture = Image.open(images[0]).convert(mode)
    picture.save(tmp_path / "odd.tiff")
    status, out, err = call(
        "caption", tmp_path / "odd.tiff", "--model", world / "model"
    )
    assert (status, err, out.count("\n")) == (0, "", 1)


# -------------------------------------------------------------------------------- training again


def test_report_49_61_144_a_finished_training_is_neither_lost_nor_repeated(
    world,
):
    best = world / "model" / "best" / "model.safetensors"
    before = best.read_bytes()
    words = ["train", "--data", world / "prepared", "--to", world / "model"]
    status, _, err = call(*words)
    assert status == 2 and "resume" in err and err.count("\n") == 1
    status, out, _ = call(
        *words, "--resume"
    )  # its settings are stored; it has nothing left to do
    assert status == 0 and "epoch 1" in out
    status, _, err = call(*words, "--resume", "--learning-rate", "0.1")
    assert status == 2 and "learning_rate" in err and err.count("\n") == 1
    status, _, err = call(*words, "--resume", "--embed-dim", "8")
    assert status == 2 and "another shape" in err and err.count("\n") == 1
    assert best.read_bytes() == before
    assert len((world / "model" / "log.jsonl").read_text().splitlines()) == 1


def test_a_training_of_version_0_1_cannot_be_resumed_and_says_so(
    world, tmp_path
):
    folder = tmp_path / "old"
    shutil.copytree(world / "model", folder)
    path = folder / "last" / "training.json"
    place = json.loads(path.read_text())
    del place["format"]  # 0.1 wrote none
    path.write_text(json.dumps(place))
    status, _, err = call(
        "train", "--data", world / "prepared", "--to", folder, "--resume"
    )
    assert status == 2 and len(err.splitlines()) == 1
    assert "is a training of version 0.1" in err
    assert "train into another folder" in err


def test_second_stage_starts_from_the_first(world, tmp_path):
    words = [
        "train",
        "--data",
        world / "prepared",
        "--to",
        tmp_path / "second",
        "--epochs",
        "1",
    ]
    words += [
        "--start-from",
        world / "model",
        "--fine-tune-encoder",
        "--batch-size",
        "8",
    ]
    status, out, err = call(*words)
    assert (status, err) == (0, "")
    assert (
        read_json(tmp_path / "second" / "best" / "config.json")["model"][
            "decoder_dim"
        ]
        == 16
    )
    words[words.index("--to") + 1] = tmp_path / "third"
    status, _, err = call(*words, "--embed-dim", "8")
    assert status == 2 and "--embed-dim" in err


# ------------------------------------------------------------------------------ usage and mistakes


SETTINGS = {
    "scenes": [ScenesConfig],
    "prepare": [DataConfig, ReadingConfig, SplitConfig],
    "train": [RunConfig, ModelConfig, EngineConfig, ViewConfig, DecodingConfig],
    "evaluate": [CaptionConfig, SplitConfig],
    "caption": [CaptionConfig],
    "export": [ExportConfig],
}


@pytest.mark.parametrize("command", SETTINGS)
def test_help_says_each_settings_meaning_default_and_range(command):
    said = help_of(command)
    for kind in SETTINGS[command]:
        defaults = kind()
        for name, each in settings_of(kind).items():
            about = " ".join(each.metadata["about"].split())
            default = getattr(defaults, name)
            if default is None:
                default = each.metadata["unset"]
            elif isinstance(default, bool):
                default = "on" if default else "off"
            elif isinstance(default, float):
                default = f"{default:g}"
            expected = f"{about} (default: {default}"
            bounds = range_in_words(each.metadata)
            if bounds and "choices" not in each.metadata:
                expected += f"; {bounds}"
            assert "--" + name.replace("_", "-") in said
            # A line may have been broken behind a hyphen.
            assert expected.replace(" ", "") in said.replace(" ", ""), name


def test_no_setting_belongs_to_two_classes_of_one_command():
    for kinds in SETTINGS.values():
        names = [name for kind in kinds for name in settings_of(kind)]
        assert len(names) == len(set(names))


def option_of(name: str) -> str:
    return "--" + name.replace("_", "-")


@pytest.mark.parametrize(
    "kind, name",
    [
        (kind, name)
        for kind in SETTINGS["train"]
        for name, each in settings_of(kind).items()
        if range_in_words(each.metadata)
    ],
)
def test_the_command_line_and_the_class_agree_on_a_range(kind, name):
    bounds = settings_of(kind)[name].metadata
    outside = ["nonsense"]
    for bound, step in (
        ("at_least", -1),
        ("above", 0),
        ("at_most", 1),
        ("below", 0),
    ):
        if bound in bounds:
            value = bounds[bound] + step
            outside.append(str(value))
            with pytest.raises(ValueError, match=f"{name} must be"):
                kind(**{name: value})
    parse = arguments.make_parser().parse_args
    for text in outside:
        with pytest.raises(InputError, match=f"{option_of(name)}: must be"):
            parse(["train", "--to", "t", f"{option_of(name)}={text}"])
    if "at_least" in bounds:
        text = str(bounds["at_least"])
        args = parse(["train", "--to", "t", option_of(name), text])
        assert getattr(args, name) == bounds["at_least"]
    for choice in bounds.get("choices", ()):
        args = parse(["train", "--to", "t", option_of(name), choice])
        assert getattr(args, name) == choice


def test_only_settings_that_were_given_are_passed_on():
    words = "train --data d --to t --alpha-c 0 --seed 0 --dropout 0".split()
    args = arguments.make_parser().parse_args(words)
    expected = {"seed": 0, "alpha_c": 0.0}
    assert arguments.given(args, EngineConfig) == expected
    assert arguments.given(args, ModelConfig) == {"dropout": 0.0}
    assert arguments.given(args, RunConfig) == {"data": "d"}
    assert arguments.given(args, ViewConfig, DecodingConfig) == {}


@pytest.mark.parametrize(
    "words, bf16",
    [
        ("", None),
        ("--bf16", True),
        ("--no-bf16", False),
        ("--bf16 on", True),
        ("--bf16 off", False),
        ("--bf16 auto", "auto"),
        ("--bf16 --seed 1", True),
    ],
)
def test_bf16_may_be_left_to_a_measurement(words, bf16):
    args = arguments.make_parser().parse_args(
        ["train", "--to", "t", *words.split()]
    )
    chosen = arguments.given(args, EngineConfig).get("bf16")
    assert (
        chosen == bf16
        if bf16 is None
        else EngineConfig(bf16=chosen).bf16 == bf16
    )


def help_of(*command) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stopped:
        cli.main([*command, "--help"])
    assert stopped.value.code == 0
    return " ".join(out.getvalue().split())


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_has_an_example_that_parses(command):
    for example in (
        help_of(command).split("example: captionlib ")[1].split(" captionlib ")
    ):
        assert example.split()[0] == command
        arguments.make_parser().parse_args(example.split())


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from captionlib import cli\n"
        "try: cli.main(['caption', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("model", [[], ["--model", "toy"]])
def test_captioning_imports_no_library_that_it_does_not_use(model):
    """Together they take longer to import than torch: see benchmarks/cold_start.py."""
    words = ["caption", *model, str(ASSETS / "photograph.jpg")]
    code = (
        "import sys; from captionlib import cli\n"
        f"assert cli.main({words}) == 0\n"
        "unused = {'timm', 'torchvision', 'torch._dynamo', 'sympy', 'pandas',"
        " 'matplotlib', 'accelerate'}\n"
        "assert not unused & set(sys.modules), unused & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.fixture
def odd(tmp_path) -> dict:
    """Things that people pass by mistake, by name."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "not.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    for name, files in {
        "bad": ["config.json"],
        "torn": ["config.json", "vocabulary.json", "model.safetensors"],
    }.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}")
    return {path.stem: path for path in tmp_path.iterdir()} | {
        "gone": tmp_path / "gone"
    }


MISTAKES = [
    ("", "COMMAND"),
    ("nonsense", "nonsense"),
    ("download", "NAME"),
    ("download imagenet --to {gone}", "flickr30k"),
    ("download flickr8k", "--to"),
    ("download flickr8k --to {text}", "text.jpg"),
    ("download flickr30k --to {gone}", "https://forms.illinois.edu"),
    ("download flickr30k --to {gone} --archive {gone}", "no such file"),
    ("caption", "IMAGE"),
    ("caption x.png --bogus", "--bogus"),
    ("caption {image} --model {model} --beam-size 0", "--beam-size"),
    ("caption {image} --model {model} --beam-size two", "two"),
    ("caption {image} --model {model} --batch-size 0", "--batch-size"),
    ("caption {image} --model {model} --device toaster", "toaster"),
    ("caption {image} --model {gone}", "gone"),
    ("caption {image} --model {empty}", "empty"),
    ("caption {image} --model {bad}", "bad"),
    ("caption {image} --model {torn}", "torn"),
    ("caption {image} --model {text}", "text.jpg"),
    ("caption {empty} --model {model}", "is a folder"),
    ("caption {text} --model {model}", "text.jpg"),
    ("caption {gone} --model {model}", "no such file"),
    ("caption /dev/null --model {model}", "/dev/null"),
    ("scenes", "--to"),
    ("scenes --to {gone} --train -1", "--train"),
    ("scenes --to {text} --train 1 --val 0 --test 0", "text.jpg"),
    ("prepare --karpathy-json {gone} --images {empty} --to {gone}", "gone"),
    ("prepare --karpathy-json {not} --images {images} --to {gone}", "not.json"),
    (
        "prepare --karpathy-json {list} --images {images} --to {gone}",
        "list.json",
    ),
    ("prepare --karpathy-json {json} --images {gone} --to {gone}", "gone"),
    ("prepare --karpathy-json {json} --images {empty} --to {gone}", "is empty"),
    (
        "prepare --karpathy-json {json} --images {images} --to {gone} --max-len 0",
        "--max-len",
    ),
    ("train --data {gone} --to {gone}", "gone"),
    ("train --data {empty} --to {gone}", "prepare it first"),
    ("train --data {data} --to {gone} --epochs 0", "epochs"),
    ("train --data {data} --to {gone} --schedule never", "never"),
    ("train --data {data} --to {gone} --dropout 1.5", "dropout"),
    ("train --data {data} --to {gone} --own-words 2", "at most 1"),
    (
        "train --data {data} --to {gone} --own-words-ramp steep",
        "inverse_sigmoid",
    ),
    (
        "train --data {data} --to {gone} --checkpoint-minutes never",
        "--checkpoint-minutes",
    ),
    ("train --data {data} --to {gone} --backbone nonsense_net", "nonsense_net"),
    ("train --data {data} --to {gone} --start-from {empty}", "empty"),
    ("train --data {data} --to {text}", "text.jpg"),
    ("evaluate --karpathy-json {json} --images {images}", "--split"),
    ("evaluate --karpathy-json {json} --images {images} --split all", "all"),
    (
        "evaluate --karpathy-json {gone} --images {images} --split test --model {model}",
        "gone",
    ),
    (
        "evaluate --karpathy-json {json} --images {empty} --split test --model {model}",
        "is empty",
    ),
    (
        "evaluate --karpathy-json {json} --images {images} --split test --model {empty}",
        "empty",
    ),
    (
        "evaluate --karpathy-json {json} --images {images} --split test --model {model} "
        "--save-results {empty}",
        "is a folder",
    ),
    ("convert {text}", "--word-map"),
    ("convert {gone} --word-map {word_map} --to {gone}", "is not a file"),
    ("convert {empty} --word-map {word_map} --to {gone}", "is not a file"),
    (
        "convert {text} --word-map {word_map} --to {gone}",
        "is not a checkpoint, or is damaged",
    ),
    ("convert {text} --word-map {list} --to {gone}", "list.json"),
    ("convert {text} --word-map {word_map} --to {model}", "holds a training"),
]


@pytest.mark.parametrize("words, named", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(world, images, odd, words, named):
    places = odd | {
        "model": world / "model",
        "data": world / "prepared",
        "images": world / "toy" / "images",
        "json": world / "toy" / "dataset_scenes.json",
        "word_map": world / "model" / "best" / "vocabulary.json",
        "image": images[0],
    }
    status, out, err = call(*words.format(**places).split())
    assert status == 2 and out == ""
    assert (
        err.startswith("captionlib: ")
        and err.count("\n") == 1
        and err.endswith("\n")
    )
    assert named in err


def test_a_shipped_captioner_that_is_not_there_is_said(
    images, monkeypatch, tmp_path
):
    from captionlib import captioner

    monkeypatch.setattr(captioner, "SHIPPED", tmp_path / "flickr8k")
    status, _, err = call("caption", images[0])
    assert status == 2 and "train one" in err and err.count("\n") == 1


def test_a_name_with_line_breaks_is_still_one_line(world, tmp_path):
    status, _, err = call(
        "caption", tmp_path / "two\nlines.jpg", "--model", world / "model"
    )
    assert status == 2 and err.count("\n") == 1


def test_anything_unforeseen_is_one_line_and_status_1(monkeypatch, tmp_path):
    from captionlib.toy import scenes

    def fail(*args, **options):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(scenes, "write_scenes", fail)
    monkeypatch.delenv("CAPTIONLIB_DEBUG", raising=False)
    status, _, err = call("scenes", "--to", tmp_path)
    assert status == 1 and err.count("\n") == 1
    assert (
        "first line" in err
        and "CAPTIONLIB_DEBUG=1" in err
        and "Traceback" not in err
    )
    monkeypatch.setenv("CAPTIONLIB_DEBUG", "1")
    status, _, err = call("scenes", "--to", tmp_path)
    assert status == 1 and "Traceback" in err


def test_ctrl_c_is_one_line_and_status_130(tmp_path):
    words = [
        "scenes",
        "--to",
        str(tmp_path),
        "--train",
        "20000",
        "--val",
        "0",
        "--test",
        "0",
    ]
    command = [sys.executable, "-m", "captionlib.cli", *words]
    # A group of its own, as in a terminal: Ctrl-C goes to the whole group.
    running = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests that run in the background were told to ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    patience = time.monotonic() + 60
    while not any(tmp_path.glob("images/*")) and time.monotonic() < patience:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err == "captionlib: interrupted\n"
    assert not any(tmp_path.glob("images/.*"))  # nothing half-written


def test_a_reader_that_leaves_is_no_disaster(world, images):
    words = ["caption", *map(str, images), "--model", str(world / "model")]
    running = subprocess.Popen(
        [sys.executable, "-m", "captionlib.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(timeout=60) == 1
