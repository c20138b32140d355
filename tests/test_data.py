import json
import os
import pickle
import random
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from trees import (
    coco_tree,
    contents,
    entry,
    flickr_tree,
    long_and_short_tree,
    say,
    write_json_file,
)

from captionlib.data import (
    IMAGE_SIZE,
    CaptionDataset,
    DataConfig,
    ImageDataset,
    Vocabulary,
    choose_captions,
    find_base,
    image_file,
    load_references,
    prepare,
    read_image,
)
from captionlib.io.files import InputError
from captionlib.io.karpathy import read_karpathy

SMALL = DataConfig(captions_per_image=5, min_word_freq=2, max_len=10)


BASE = "flickr8k_5_cap_per_img_2_min_word_freq"


@pytest.fixture
def flickr(tmp_path):
    return flickr_tree(tmp_path / "flickr")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared tree, and the records it was made of."""
    folder = tmp_path_factory.mktemp("flickr")
    tree = flickr_tree(folder)
    prepare(*tree, folder / "data", SMALL)
    return folder / "data", read_karpathy(*tree)


def load(folder, name):
    return json.loads((Path(folder) / name).read_text())


# The word map


def test_ids_follow_the_contract():
    captions = [["b", "b", "a", "c"], ["c", "b", "a", "d"]]
    vocabulary = Vocabulary.build(captions, min_word_freq=2)
    assert vocabulary.words == [
        "<pad>",
        "b",
        "a",
        "c",
        "<unk>",
        "<start>",
        "<end>",
    ]
    assert vocabulary.word_map["<pad>"] == vocabulary.pad == 0
    assert [vocabulary.unk, vocabulary.start, vocabulary.end] == [
        4,
        5,
        6,
    ] and len(vocabulary) == 7
    assert all(
        vocabulary.words[id] == word for word, id in vocabulary.word_map.items()
    )


@pytest.mark.parametrize("times, kept", [(3, True), (4, True), (2, False)])
def test_a_word_is_kept_from_min_word_freq_on(times, kept):
    captions = [["rare"]] * times + [["common"]] * 9
    assert (
        "rare" in Vocabulary.build(captions, min_word_freq=3).word_map
    ) == kept


def test_the_order_of_captions_does_not_matter():
    captions = [say(seed) for seed in range(30)]
    shuffled = random.Random(0).sample(captions, len(captions))
    words = Vocabulary.build(captions, 2).words
    assert words == Vocabulary.build(shuffled, 2).words


def test_encoding_and_decoding():
    vocabulary = Vocabulary.build([["a", "dog", "runs"]], 1)
    start, end, unk, pad = (
        vocabulary.start,
        vocabulary.end,
        vocabulary.unk,
        vocabulary.pad,
    )
    a, dog = vocabulary.word_map["a"], vocabulary.word_map["dog"]
    assert vocabulary.encode(["a", "dog"], 4) == [start, a, dog, end, pad, pad]
    assert vocabulary.encode(["a", "cat"], 2) == [start, a, unk, end]
    assert vocabulary.encode(["a", "a", "a", "dog"], 2) == [start, a, a, end]
    assert vocabulary.encode([], 1) == [start, end, pad]
    assert vocabulary.encode(["<end>", "<pad>", "<unk>"], 3) == [
        start,
        unk,
        unk,
        unk,
        end,
    ]
    for tokens in (["a"], ["runs", "dog", "a"], []):
        ids = vocabulary.encode(tokens, 3)
        assert len(ids) == 5 and vocabulary.decode(ids) == tokens
        assert vocabulary.decode(torch.tensor(ids)) == tokens


def test_a_spelt_out_special_token_is_no_word():
    vocabulary = Vocabulary.build(
        [["<end>", "<start>", "<pad>", "<unk>", "a"]] * 9, 1
    )
    assert sorted(vocabulary.words) == [
        "<end>",
        "<pad>",
        "<start>",
        "<unk>",
        "a",
    ]


def test_a_word_map_is_saved_loaded_and_refused(tmp_path):
    vocabulary = Vocabulary.build([["été", "dog"]], 1)
    vocabulary.save(tmp_path / "w.json")
    assert Vocabulary.load(tmp_path / "w.json").word_map == vocabulary.word_map
    good = vocabulary.word_map
    for bad in (
        [],
        7,
        {},
        {"a": "b"},
        {"<pad>": 0},
        good | {"x": 1},
        good | {"x": 99},
        {word: id + 1 for word, id in good.items()},
        {word: (1, 0, *range(2, 9))[id] for word, id in good.items()},
    ):
        (tmp_path / "bad.json").write_text(json.dumps(bad))
        with pytest.raises(InputError, match="bad.json: is not a word map"):
            Vocabulary.load(tmp_path / "bad.json")


def test_numbers_that_make_no_sense():
    for name in ("captions_per_image", "min_word_freq", "max_len"):
        with pytest.raises(
            ValueError, match=f"{name} must be at least 1, got 0"
        ):
            DataConfig(**{name: 0})


# prepare


def test_the_files_are_those_of_the_contract(prepared):
    folder, records = prepared
    sizes = {"TRAIN": 4, "VAL": 2, "TEST": 2}
    names = {f"{kind}_{BASE}.json" for kind in ("WORDMAP", "REFERENCES")}
    for split, size in sizes.items():
        names |= {f"{split}_IMAGES_{BASE}.hdf5"}
        names |= {
            f"{split}_{kind}_{BASE}.json" for kind in ("CAPTIONS", "CAPLENS")
        }
        with h5py.File(folder / f"{split}_IMAGES_{BASE}.hdf5") as file:
            assert list(file) == ["images"] and dict(file.attrs) == {
                "captions_per_image": 5
            }
            assert file["images"].shape == (size, 3, 256, 256)
            assert file["images"].dtype == np.uint8
        captions = load(folder, f"{split}_CAPTIONS_{BASE}.json")
        lengths = load(folder, f"{split}_CAPLENS_{BASE}.json")
        assert len(captions) == len(lengths) == 5 * size
        assert all(len(caption) == SMALL.max_len + 2 for caption in captions)
    assert set(contents(folder)) == names
    assert set(load(folder, f"REFERENCES_{BASE}.json")) == {"VAL", "TEST"}


@pytest.mark.parametrize("split", ["TRAIN", "VAL", "TEST"])
def test_report_80_101_110_157_stored_pixels_are_those_of_inference(
    prepared, split
):
    folder, records = prepared
    with h5py.File(image_file(folder, split)) as file:
        stored = file["images"][:]
    expected = [
        read_image(record.path) for record in records if record.split == split
    ]
    assert (stored == np.stack(expected)).all() and stored.max() > 200


@pytest.mark.parametrize("split", ["TRAIN", "VAL", "TEST"])
def test_caption_i_belongs_to_image_i_over_n(prepared, split):
    folder, records = prepared
    dataset = CaptionDataset(folder, split)
    records = [record for record in records if record.split == split]
    vocabulary = dataset.vocabulary
    for i in range(len(dataset)):
        image, caption, length = dataset[i]
        record = records[i // 5]
        encoded = [
            vocabulary.encode(tokens, SMALL.max_len)
            for tokens in record.captions
        ]
        assert caption.tolist() in encoded
        assert (image.numpy() == read_image(record.path)).all()
        assert int(length) == int((caption != vocabulary.pad).sum())


def test_references_are_all_captions_as_they_were(prepared):
    folder, records = prepared
    for split in ("VAL", "TEST"):
        names, references = load_references(folder, split)
        expected = [record for record in records if record.split == split]
        assert names == [record.filename for record in expected]
        assert references == [
            [list(c) for c in record.captions] for record in expected
        ]
    assert (
        load_references(folder, "val")[0] == load_references(folder, "VAL")[0]
    )
    with pytest.raises(InputError, match="only VAL and TEST have them"):
        load_references(folder, "train")


def test_coco_trains_on_restval(tmp_path):
    tree = coco_tree(tmp_path)
    base = prepare(*tree, tmp_path / "data", SMALL)
    assert base == "coco_5_cap_per_img_2_min_word_freq"
    dataset = CaptionDataset(tmp_path / "data", "train")
    assert len(dataset.images) == 3
    assert dataset.vocabulary.decode(dataset[5][1]) == [
        "a",
        "giraffe",
        "stands",
        "there",
    ]
    assert load_references(tmp_path / "data", "TEST")[0] == [
        "val2014/COCO_val2014_000000000004.jpg"
    ]


def test_seen_in_the_code_no_word_is_counted_in_validation_or_test(tmp_path):
    prepare(*coco_tree(tmp_path), tmp_path / "data", SMALL)
    dataset = CaptionDataset(tmp_path / "data", "val")
    assert {"zebra", "giraffe"} < dataset.vocabulary.word_map.keys()
    assert not {"otter", "walrus"} & dataset.vocabulary.word_map.keys()
    assert dataset.vocabulary.decode(dataset[0][1]) == [
        "a",
        "<unk>",
        "stands",
        "there",
    ]


def test_report_23_179_grey_and_transparent_images_are_prepared(tmp_path):
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    Image.new("L", (30, 40), 100).save(images / "grey.jpg")
    Image.new("RGBA", (30, 40), (9, 9, 9, 0)).save(images / "clear.png")
    names = ["grey.jpg", "clear.png"]
    karpathy_json = write_json_file(
        tmp_path / "d.json",
        "odd",
        [entry(name, "train", [say(0)]) for name in names],
    )
    prepare(karpathy_json, images, tmp_path / "data", SMALL)
    images = CaptionDataset(tmp_path / "data", "train").images
    assert images[0].unique().tolist() == [100] and images[
        1
    ].unique().tolist() == [255]


def test_long_training_captions_are_dropped_and_validation_is_kept(tmp_path):
    prepare(*long_and_short_tree(tmp_path), tmp_path / "data", SMALL)
    train = CaptionDataset(tmp_path / "data", "train")
    assert len(train.images) == 1 and train.lengths.tolist() == [12] * 5
    assert (
        "unheard" in train.vocabulary.word_map
    )  # counted, though too long to train on
    val = CaptionDataset(tmp_path / "data", "val")
    assert len(val.images) == 2
    cut = val[0][1].tolist()
    assert (
        cut[0] == val.vocabulary.start
        and cut[-1] == val.vocabulary.end
        and val[0][2] == 12
    )
    assert set(val.lengths[5:].tolist()) == {12, 7}
    names, references = load_references(tmp_path / "data", "val")
    assert names == ["v.jpg", "w.jpg"]
    assert references == [[say(5, 30)], [say(6, 11), say(7, 5)]]


@pytest.mark.parametrize("have", [1, 2, 4, 5, 6, 9])
def test_every_image_gets_the_same_number_of_captions(have):
    captions = list(range(have))
    for seed in range(20):
        chosen = choose_captions(captions, 5, random.Random(seed))
        assert len(chosen) == 5 and set(chosen) <= set(captions)
        assert len(set(chosen)) == min(
            have, 5
        )  # none is lost, none repeated without need
    draws = {
        tuple(choose_captions(captions, 5, random.Random(seed)))
        for seed in range(20)
    }
    assert (len(draws) > 1) == (have not in (1, 5))


def test_another_seed_draws_other_captions_and_nothing_else_does(tmp_path):
    tree = flickr_tree(tmp_path, captions=9)
    config = DataConfig(min_word_freq=1)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        random.seed(name)
        np.random.seed(seed + 7)
        prepare(*tree, tmp_path / name, DataConfig(min_word_freq=1, seed=seed))
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert {name for name in a if a[name] != c[name]} == {
        f"{split}_CAPTIONS_flickr8k_5_cap_per_img_1_min_word_freq.json"
        for split in ("TRAIN", "VAL", "TEST")
    }
    assert config.seed == 0


def test_an_empty_split_is_a_split(tmp_path):
    tree = flickr_tree(tmp_path, test=0)
    prepare(*tree, tmp_path / "data", SMALL)
    test = CaptionDataset(tmp_path / "data", "test")
    assert (
        len(test) == len(test.images) == 0
        and load_references(tmp_path / "data", "test")[0] == []
    )


def test_the_first_bad_image_stops_it(flickr, tmp_path):
    next(flickr[1].glob("*_test1.jpg")).write_text("hello")
    with pytest.raises(InputError, match="_test1.jpg: is not an image"):
        prepare(*flickr, tmp_path / "data", SMALL)


# Reading


def collect(folder, workers, context=None, split="train"):
    dataset = CaptionDataset(folder, split)
    loader = DataLoader(
        dataset,
        batch_size=3,
        num_workers=workers,
        multiprocessing_context=context,
    )
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


@pytest.mark.parametrize(
    "workers, context", [(1, "fork"), (2, "fork"), (2, "spawn")]
)
def test_report_15_53_119_143_any_number_of_workers(prepared, workers, context):
    if context == "fork" and not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    folder, _ = prepared
    expected = collect(folder, 0)
    for a, b in zip(collect(folder, workers, context), expected, strict=True):
        assert a.dtype == b.dtype and a.equal(b)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_report_15_53_119_143_a_fork_of_a_reader_opens_its_own(prepared):
    folder, _ = prepared
    dataset = CaptionDataset(folder, "train")
    expected = [
        dataset[i] for i in range(len(dataset))
    ]  # this process has the file open now
    held = dataset.images._images
    loader = DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    for got, wanted in zip(loader, expected, strict=True):
        assert all(a.equal(b) for a, b in zip(got, wanted, strict=True))
    assert dataset.images._images is held and dataset[0][0].equal(
        expected[0][0]
    )


def test_report_15_53_119_143_a_dataset_can_be_sent(prepared):
    folder, _ = prepared
    dataset = CaptionDataset(folder, "train")
    assert (
        dataset.images._images is None
    )  # nothing is opened before it is needed
    first = dataset[0]
    sent = pickle.loads(pickle.dumps(dataset))
    assert sent.images._images is None
    assert all(a.equal(b) for a, b in zip(first, sent[0], strict=True))


def test_items_are_what_they_are_said_to_be(prepared):
    folder, _ = prepared
    dataset = CaptionDataset(folder, "Train")
    image, caption, length = dataset[0]
    assert image.dtype == torch.uint8 and image.shape == (
        3,
        IMAGE_SIZE,
        IMAGE_SIZE,
    )
    assert caption.dtype == torch.int64 and caption.shape == (
        SMALL.max_len + 2,
    )
    assert length.dtype == torch.int64 and length.shape == ()
    assert dataset.captions.shape == (20, 12) and dataset.lengths.shape == (20,)
    assert len(dataset) == 20 and dataset.captions_per_image == 5
    assert len(list(iter(dataset))) == 20
    with pytest.raises(IndexError):
        dataset[20]


def test_seen_in_the_code_each_image_can_be_had_once(prepared):
    folder, records = prepared
    images = CaptionDataset(folder, "test").images
    assert len(images) == 2 and len(list(iter(images))) == 2
    batch = next(iter(DataLoader(images, batch_size=8)))
    expected = [
        read_image(record.path) for record in records if record.split == "TEST"
    ]
    assert (batch.numpy() == np.stack(expected)).all()
    for i in (2, -1):
        with pytest.raises(IndexError):
            images[i]


def test_the_original_tutorials_files_are_read(tmp_path):
    base = "coco_5_cap_per_img_5_min_word_freq"
    words = {"dog": 1, "a": 2, "<unk>": 3, "<start>": 4, "<end>": 5, "<pad>": 0}
    (tmp_path / f"WORDMAP_{base}.json").write_text(json.dumps(words))
    with h5py.File(tmp_path / f"TRAIN_IMAGES_{base}.hdf5", "a") as file:
        file.attrs["captions_per_image"] = 5
        images = file.create_dataset("images", (2, 3, 256, 256), dtype="uint8")
        images[1] = 7
    captions = [[4, 2, 1, 5, 0, 0]] * 10
    (tmp_path / f"TRAIN_CAPTIONS_{base}.json").write_text(json.dumps(captions))
    (tmp_path / f"TRAIN_CAPLENS_{base}.json").write_text(json.dumps([4] * 10))
    dataset = CaptionDataset(tmp_path, "TRAIN")
    image, caption, length = dataset[9]
    assert image.unique().tolist() == [7] and int(length) == 4
    assert dataset.vocabulary.decode(caption) == ["a", "dog"]


def test_folders_that_hold_no_data_set_or_two(prepared, tmp_path):
    folder, _ = prepared
    assert find_base(folder) == BASE
    for empty in (tmp_path, tmp_path / "gone"):
        with pytest.raises(InputError, match="holds no prepared data"):
            find_base(empty)
    for name in ("a", "b"):
        (tmp_path / f"WORDMAP_{name}.json").write_text("{}")
    with pytest.raises(InputError, match="WORDMAP_a.json and WORDMAP_b.json"):
        find_base(tmp_path)
    with pytest.raises(InputError, match="the splits are TRAIN, VAL and TEST"):
        CaptionDataset(folder, "dev")


def test_files_that_do_not_belong_together(flickr, tmp_path):
    prepare(*flickr, tmp_path, SMALL)
    (tmp_path / f"VAL_CAPLENS_{BASE}.json").write_text("[3]")
    with pytest.raises(InputError, match="val files disagree"):
        CaptionDataset(tmp_path, "val")
    path = tmp_path / f"TRAIN_IMAGES_{BASE}.hdf5"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="holds no prepared images"):
        ImageDataset(path)
    with h5py.File(path, "w") as file:
        file.attrs["captions_per_image"] = 5
        file["images"] = np.zeros((2, 3, 224, 224), np.float32)
    with pytest.raises(InputError, match="holds float32"):
        ImageDataset(path)


def test_plain_preparing_needs_no_settings_and_makes_its_folder(tmp_path):
    tree = flickr_tree(tmp_path)
    base = prepare(*tree, str(tmp_path / "not" / "there"))
    assert base == "flickr8k_5_cap_per_img_5_min_word_freq"
    assert find_base(tmp_path / "not" / "there") == base


def test_a_process_opens_a_file_of_images_once(prepared, monkeypatch):
    images = ImageDataset(image_file(prepared[0], "TRAIN"))
    opened, File = [], h5py.File
    monkeypatch.setattr(
        h5py, "File", lambda *a, **k: opened.append(a) or File(*a, **k)
    )
    assert [images[i].dtype for i in (0, 1, 0)] == [torch.uint8] * 3
    assert len(opened) == 1
