"""The words of a data set: chosen anew, or on from those of a captioner."""

import math

import pytest
import torch
from trees import entry, paint, write_json_file

from captionlib.beam_search import beam_search_all
from captionlib.cli import main
from captionlib.config import DataConfig, Recipe, SearchConfig
from captionlib.data import CaptionDataset, Vocabulary, find_base
from captionlib.engine import prepare_data, train_recipe
from captionlib.engine.fine_tuning import HalfEncoded
from captionlib.io.files import InputError, read_json
from captionlib.model import CaptionModel

OLD = "a dog runs on the green grass".split()
NEW = "a dog sniffs the tulip".split()
ONCE = DataConfig(captions_per_image=1, min_word_freq=1, max_len=10)


def source(folder, training, validation=(OLD,), test=(OLD,)):
    """A Karpathy JSON and its images, one caption each."""
    entries = []
    for split, captions in (
        ("train", training),
        ("val", validation),
        ("test", test),
    ):
        for tokens in captions:
            name = f"{len(entries)}.png"
            paint(folder / "images" / name, len(entries), (40, 40))
            entries.append(entry(name, split, [tokens]))
    path = write_json_file(folder / "dataset.json", "own", entries)
    return path, folder / "images"


def prepare(folder, training, config=ONCE, validation=(OLD,), **options):
    tree = source(folder, training, validation)
    return prepare_data(*tree, folder / "data", config, **options)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A captioner of 64 pixels and seven words, trained for an epoch."""
    folder = tmp_path_factory.mktemp("small")
    prepare(folder, [OLD] * 4)
    recipe = Recipe(
        model={"image_size": 64, "attention_dim": 8, "embed_dim": 8}
        | {"decoder_dim": 8},
        search={"beam_size": 2, "max_words": 9},
    )
    return train_recipe(
        recipe,
        to=folder / "model",
        data=str(folder / "data"),
        epochs=1,
        progress=False,
        say=lambda line: None,
    ).best


# What is said, and what is refused


def test_report_neuraltalk2_154_catr_9_no_words_are_refused(tmp_path):
    """Two photographs and default settings, before any image is decoded."""
    karpathy_json, images = source(tmp_path, [OLD, NEW])
    for image in images.iterdir():
        image.write_bytes(b"not an image")
    with pytest.raises(InputError) as caught:
        prepare_data(karpathy_json, images, tmp_path / "data", DataConfig())
    message = str(caught.value)
    assert message.startswith(f"{karpathy_json}: no word")
    assert "at least 5 times" in message and "--min-word-freq" in message
    assert not (tmp_path / "data").exists()


def test_report_catr_9_no_words_after_skipping_are_refused(tmp_path):
    karpathy_json, images = source(tmp_path, [["rare"], OLD, OLD])
    for number in (1, 2):
        (images / f"{number}.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match="no word of the training captions"):
        prepare_data(
            karpathy_json,
            images,
            tmp_path / "data",
            DataConfig(min_word_freq=2),
            skip_bad=True,
        )
    assert not any((tmp_path / "data").iterdir())


def test_report_neuraltalk2_154_words_kept_and_lost_are_said(tmp_path, capsys):
    training = [["a", "dog"], ["a", "dog"], ["a", "cat", "sits", "here"]]
    karpathy_json, images = source(tmp_path, training, [["a", "fox"]], [])
    words = ["prepare", "--karpathy-json", karpathy_json, "--images", images]
    words += ["--to", tmp_path / "data", "--min-word-freq", "2"]
    assert main([str(word) for word in words]) == 0
    out, err = capsys.readouterr()
    much = ", which is a lot; a --min-word-freq below 2 would lower it"
    share = "of the words in captions become <unk>" + much
    data = tmp_path / "data"
    assert (err, out.splitlines()) == (
        "",
        [
            "words: 2 kept, each at least 2 times in training",
            f"training: 37.5% {share}",
            f"validation: 50.0% {share}",
            "test: no images",
            str(data / find_base(data)),
        ],
    )


def test_report_catr_9_the_numbers_are_returned(tmp_path):
    done = prepare(tmp_path, [OLD, OLD], validation=[NEW, OLD])
    folder = tmp_path / "data"
    assert done.words.vocabulary.word_map == read_json(
        folder / f"WORDMAP_{done.base}.json"
    )
    # Of the twelve words, "sniffs" and "tulip".
    assert done.words.unknown == {"TRAIN": 0, "VAL": 2 / 12, "TEST": 0}
    assert done.words.new == []


def test_an_empty_validation_split_is_said(tmp_path):
    done = prepare(tmp_path, [OLD], validation=[])
    assert [line for line in done.words.lines if "no images" in line] == [
        "validation: no images; train needs some, to choose the best epoch"
    ]


# Data with the words of a captioner


def test_report_yunjey_190_new_words_follow_the_captioners(tmp_path, small):
    training = [NEW, NEW, OLD, ["a", "pug"]]
    known = read_json(small / "vocabulary.json")
    config = DataConfig(captions_per_image=1, min_word_freq=2, max_len=10)
    done = prepare(tmp_path, training, config, words_of=str(small))
    V, word_map = len(known), done.words.vocabulary.word_map
    assert word_map == known | {"sniffs": V, "tulip": V + 1}
    dataset = CaptionDataset(tmp_path / "data", "train")
    assert dataset.vocabulary.word_map == word_map
    _, caption, length = dataset[0]
    assert dataset.vocabulary.decode(caption[:length]) == NEW
    assert done.words.lines[0] == (
        f"words: {V - 2}, those of {small} and 2 that it lacks, which are "
        "added: sniffs, tulip"
    )


def test_report_blip_37_new_words_may_stay_unknown(tmp_path, small):
    training, known = [NEW, NEW, OLD], read_json(small / "vocabulary.json")
    done = prepare(tmp_path, training, words_of=str(small), new_words="unk")
    assert done.words.vocabulary.word_map == known
    assert done.words.lines[0].endswith(
        "2 that it lacks become <unk>: sniffs, tulip"
    )
    assert (
        "23.5%" in done.words.lines[1]
        and "--new-words add" in done.words.lines[1]
    )


def test_only_the_first_new_words_are_shown(tmp_path, small):
    letters = "qrstuvwxyz"
    done = prepare(tmp_path, [list(letters)], words_of=str(small))
    assert done.words.new == list(letters)
    assert done.words.lines[0].endswith(
        "10 that it lacks, which are added: q, r, s, t, u, ..."
    )


def test_words_of_nothing_known_are_refused(tmp_path, small):
    with pytest.raises(InputError, match=r"is one of .*try --new-words add"):
        prepare(tmp_path, [["tulip"]], words_of=str(small), new_words="unk")
    with pytest.raises(InputError, match="goes with --words-of"):
        prepare(tmp_path, [OLD], new_words="unk")
    with pytest.raises(InputError, match="^nowhere: holds no captioner"):
        prepare(tmp_path, [OLD], words_of="nowhere")


# The captioner grows


def grown(model, new):
    V = len(model.vocabulary)
    more = {f"new{i}": V + i for i in range(new)}
    return Vocabulary(model.vocabulary.word_map | more)


@pytest.mark.parametrize("kind", [CaptionModel, HalfEncoded])
def test_report_yunjey_190_known_rows_keep_their_bits(small, kind):
    model = kind.load(small)
    V, before = len(model.vocabulary), model.state_dict()
    model.add_words(grown(model, 9))
    for name, weight in model.state_dict().items():
        rows = (
            slice(V) if name.startswith(("decoder.emb", "decoder.fc")) else ...
        )
        assert torch.equal(weight[rows], before[name]), name
    assert len(model.decoder.fc.bias) == V + 9 == len(model.vocabulary)
    assert model.decoder.fc.weight.requires_grad


def test_no_new_words_leave_the_layers_alone(small):
    model = CaptionModel.load(small)
    embedding = model.decoder.embedding
    model.add_words(grown(model, 0))
    assert model.decoder.embedding is embedding


def test_other_ids_are_refused(small):
    model = CaptionModel.load(small)
    word_map = model.vocabulary.word_map
    swapped = word_map | {"a": word_map["dog"], "dog": word_map["a"]}
    fewer = Vocabulary.build([OLD[:-1]], 1)
    for other in (Vocabulary(swapped), fewer):
        with pytest.raises(InputError, match="other ids"):
            model.add_words(other)


@pytest.mark.parametrize("new", [1, 40, 3000])
def test_report_yunjey_190_a_grown_captioner_writes_what_it_wrote(new):
    """New words together start as likely as a fiftieth of the known ones, or less."""
    model = CaptionModel.load("toy")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        256, (6, 3, 256, 256), dtype=torch.uint8, generator=generator
    )
    search, V = SearchConfig(beam_size=4, max_words=20), len(model.vocabulary)
    with torch.inference_mode():
        grids = model.encode(pixels)
        before = beam_search_all(model.decoder, grids, model.vocabulary, search)
        model.add_words(grown(model, new))
        after = beam_search_all(model.decoder, grids, model.vocabulary, search)
        start = torch.full((6,), model.vocabulary.start)
        logits, _, _ = model.decoder.step(start, model.decoder.begin(grids))
    for old, now in zip(before, after, strict=True):
        assert [h.word_ids for h in old] == [h.word_ids for h in now]
    rare = logits[:, :V].mean(dim=1) + math.log(min(new, V / 50))
    together = logits[:, V:].logsumexp(dim=1)
    torch.testing.assert_close(together, rare, atol=1e-3, rtol=0)


def test_new_words_are_learned(small):
    """At the start, a new word is unlikely; its gradient is that of any word."""
    model = CaptionModel.load(small).train()
    V = len(model.vocabulary)
    model.add_words(grown(model, 5))
    fc, hidden = model.decoder.fc, torch.ones(1, 8)
    for word in (V - 5, V + 2):
        fc.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            fc(hidden), torch.tensor([word])
        )
        loss.backward()
        assert -1 <= fc.bias.grad[word] < -0.8


# From data to a fine-tuned captioner


def fine_tune(to, data, small, **settings):
    said = []
    done = train_recipe(
        to=to,
        data=None if data is None else str(data),
        start_from=str(small),
        epochs=1,
        progress=False,
        say=said.append,
        **settings,
    )
    return done, said


@pytest.mark.parametrize("last_stages", [0, 1])
def test_report_blip_37_fine_tuning_on_new_words(tmp_path, small, last_stages):
    prepare(tmp_path, [NEW] * 3, words_of=str(small))
    settings = {"last_stages": last_stages}
    settings["fine_tune_encoder"] = bool(last_stages)
    done, _ = fine_tune(tmp_path / "mine", tmp_path / "data", small, **settings)
    model = CaptionModel.load(done.best)
    assert "tulip" in model.vocabulary.word_map
    # The search that the captioner came with, not the default.
    assert (model.search["beam_size"], model.search["max_words"]) == (2, 9)
    first = CaptionModel.load(small).state_dict()
    V, fc = len(first["decoder.fc.bias"]), model.decoder.fc
    moved = (fc.bias[:V] - first["decoder.fc.bias"]).abs().max()
    assert 0 < moved < 0.1
    again = train_recipe(
        to=tmp_path / "mine",
        data=str(tmp_path / "data"),
        resume=True,
        progress=False,
        say=lambda line: None,
    )
    assert again.history == done.history


def test_report_yunjey_190_one_command_prepares_with_the_captioners_words(
    tmp_path, small
):
    karpathy_json, images = source(tmp_path, [NEW] * 6)
    done, said = fine_tune(
        tmp_path / "mine",
        None,
        small,
        karpathy_json=str(karpathy_json),
        images=str(images),
    )
    assert any(str(small) in line and "sniffs, tulip" in line for line in said)
    assert CaptionModel.load(done.best).vocabulary.words[-2:] == [
        "sniffs",
        "tulip",
    ]


def test_report_yunjey_190_data_with_other_words_is_refused(tmp_path, small):
    prepare(tmp_path, [NEW] * 3)
    with pytest.raises(InputError) as caught:
        fine_tune(tmp_path / "mine", tmp_path / "data", small)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'data'}: ")
    assert f"prepare it with --words-of {small}" in message


def test_the_shipped_captioner_can_be_named(tmp_path):
    done = prepare(tmp_path, [NEW, [*NEW, "zebu"]], words_of="flickr8k")
    model = CaptionModel.load("flickr8k", member=0)
    model.add_words(done.words.vocabulary)
    assert model.vocabulary.words[-1] == "zebu"
