"""Files of captions in every format, odd ones above all."""

import csv
import json
import os
import random
import re
from pathlib import Path

import pytest
from odd_data_sets import odd_data_sets
from trees import contents, entry, paint, write_json_file

from captionlib import cli
from captionlib.config import DataConfig, SplitConfig
from captionlib.data import CaptionDataset, load_references
from captionlib.engine.preparation import prepare_data
from captionlib.io.files import BadItem, InputError
from captionlib.io.karpathy import read_karpathy
from captionlib.io.sources.reading import read_data_set
from captionlib.io.sources.sentences import split_caption

ODD = {odd.name: odd for odd in odd_data_sets()}


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    """Flushing files to the disk takes half of the time of these tests."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def prepared_captions(folder) -> dict:
    """All captions in prepared data, as words."""
    found = {}
    for split in ("VAL", "TEST"):
        names, references = load_references(folder, split)
        found |= dict(zip(names, references, strict=True))
    return found


@pytest.mark.parametrize("name", ODD)
def test_an_odd_data_set_is_read_as_meant_or_refused_in_one_line(
    tmp_path, name
):
    odd = ODD[name]
    captions, images = odd.write(tmp_path)
    to = tmp_path / "prepared"
    config = DataConfig(captions_per_image=2, min_word_freq=1)
    if isinstance(odd.meant, str):
        with pytest.raises(InputError) as caught:
            prepare_data(captions, images, to, config, workers=1)
        line = str(caught.value)
        assert odd.meant in line and str(tmp_path) in line
        assert "; " in line and line.isprintable() and len(line) < 1000
        assert not list(to.glob("*"))
        return
    prepare_data(captions, images, to, config, workers=1)
    records = read_data_set(captions, images)
    found = {r.filename: [list(words) for words in r.captions] for r in records}
    assert found == odd.meant and list(found) == list(odd.meant)
    splits = {record.filename: record.split for record in records}
    assert odd.splits.items() <= splits.items()
    # And what was prepared is what was read.
    assert prepared_captions(to) == {
        name: captions
        for name, captions in odd.meant.items()
        if splits[name] != "TRAIN"
    }
    training = CaptionDataset(to, "TRAIN")
    decode = training.vocabulary.decode
    for n, name in enumerate(name for name in found if splits[name] == "TRAIN"):
        for caption in training.captions[2 * n : 2 * n + 2]:
            assert decode(caption) in odd.meant[name]


def test_there_are_enough_odd_data_sets():
    refused = sum(isinstance(odd.meant, str) for odd in ODD.values())
    assert refused >= 60 and len(ODD) - refused >= 60


# ---------------------------------------------------------------- four formats


SAID = {
    "a.png": ("TRAIN", ["A dog, running.", "A dog's run"]),
    "b.png": ("TRAIN", ["A dog runs.", "The RED dog"]),
    "c.png": ("VAL", ["A red cat.", "A cat"]),
    "d.png": ("TEST", ["A cat runs", "cats"]),
}


def as_karpathys(path: Path, test: str = "test") -> Path:
    entries = [
        entry(
            name,
            split.lower().replace("test", test),
            [list(split_caption(each)) for each in captions],
        )
        for name, (split, captions) in SAID.items()
    ]
    return write_json_file(path / "own.json", "own", entries)


def as_table(path: Path) -> Path:
    with open(path / "own.csv", "w", newline="", encoding="utf-8-sig") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(["Image", "Caption", "Split"])
        for name, (split, captions) in SAID.items():
            rows.writerows([name, each, split.lower()] for each in captions)
    return path / "own.csv"


def as_tokens(path: Path) -> Path:
    for kind, wanted in (("train", "TRAIN"), ("dev", "VAL"), ("test", "TEST")):
        names = [name for name, (split, _) in SAID.items() if split == wanted]
        listed = path / f"Flickr_8k.{kind}Images.txt"
        listed.write_text("\n".join(names))
    lines = [
        f"{name}#{n}\t{caption}\n"
        for name, (_, captions) in SAID.items()
        for n, caption in enumerate(captions)
    ]
    (path / "own.token.txt").write_text("".join(lines))
    return path / "own.token.txt"


def as_cocos(path: Path) -> Path:
    """COCO's two files have no test; the images are validation's then."""
    for part, splits in (("train", ("TRAIN",)), ("val", ("VAL", "TEST"))):
        images, annotations = [], []
        for name, (split, captions) in SAID.items():
            if split in splits:
                images.append({"id": len(images), "file_name": name})
                annotations += [
                    {"image_id": images[-1]["id"], "caption": each}
                    for each in captions
                ]
        both = {"images": images, "annotations": annotations}
        (path / f"own_{part}.json").write_text(json.dumps(both))
    return path / "own_train.json"


@pytest.mark.parametrize("write", [as_table, as_tokens, as_cocos])
def test_report_yunjey_66_other_formats_give_the_files_of_karpathys(
    tmp_path, write
):
    for n, name in enumerate(SAID):
        paint(tmp_path / "images" / name, n)
    found = []
    config = DataConfig(captions_per_image=2, min_word_freq=1)
    test = "val" if write is as_cocos else "test"
    for captions in (as_karpathys(tmp_path, test), write(tmp_path)):
        to = tmp_path / f"from {captions.name}"
        done = prepare_data(captions, tmp_path / "images", to, config)
        files = contents(to).items()
        found.append(
            {
                name.split(done.base)[0]: content
                for name, content in files
                if re.match("TRAIN|VAL|TEST|WORDMAP|REFERENCES", name)
            }
        )
    assert found[0] == found[1] and len(found[0]) == 11


def test_report_yunjey_66_from_a_table_to_scores(tmp_path, capsys):
    """With the commands alone, and images drawn for the splits."""
    images = tmp_path / "photos"
    for n in range(12):
        paint(images / f"{n}.png", n)
    table = write_table(tmp_path / "own.csv", [f"{n}.png" for n in range(12)])
    data = "--captions", table, "--images", images, "--split-seed", 2
    small = "--attention-dim 8 --embed-dim 8 --decoder-dim 8 --max-words 5"
    train = "train", *data, "--to", tmp_path / "model", "--epochs", 1
    prepare = "prepare", *data, "--to", tmp_path / "data"
    evaluate = "evaluate", *data, "--split", "test", "--json"
    for command in (
        prepare,
        (*train, *small.split()),
        (*evaluate, "--model", tmp_path / "model"),
    ):
        assert cli.main([str(word) for word in command]) == 0
        out, err = capsys.readouterr()
        drawn = "own.csv: has no splits; drawn by --split-seed 2: 10 images "
        assert command[0] == "evaluate" or drawn in out + err
    assert json.loads(out)["images"] == 1
    shares = "--val-share", "0.6", "--test-share", "0.5"
    assert cli.main([str(word) for word in (*evaluate, *shares)]) == 2
    assert "must leave images for training" in capsys.readouterr().err


# ------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    "raw, words",
    [
        ("A boy wearing a red t-shirt .", "a boy wearing a red t shirt"),
        ("A vendor sells children 's toys", "a vendor sells children s toys"),
        ('It reads , " Mambo " ( # 7 ) ; go !', "it reads mambo 7 go"),
        ("A dog's bone,and/or a ball.", "a dog s bone and or a ball"),
        ("L\u2019homme \u2014 l'\u00e9cole\u2026", "l homme l \u00e9cole"),
        ("snake_case \xabso\xbb", "snake case so"),
    ],
)
def test_a_caption_becomes_words_as_karpathys_flickr8k_has_them(raw, words):
    assert split_caption(raw) == tuple(words.split())


@pytest.mark.skipif(
    "FLICKR8K_DIR" not in os.environ,
    reason="FLICKR8K_DIR is not set: no real captions here",
)
def test_flickr8k_as_a_table_gives_karpathys_words(tmp_path):
    """In all but one caption of a thousand."""
    root = Path(os.environ["FLICKR8K_DIR"])
    source, images = root / "dataset_flickr8k.json", root / "Flicker8k_Dataset"
    table = tmp_path / "captions.tsv"
    lines = ["file\tsplit\tcaption"] + [
        f"{image['filename']}\t{image['split']}\t{sentence['raw']}"
        for image in json.loads(source.read_text())["images"]
        for sentence in image["sentences"]
    ]
    table.write_text("\n".join(lines))
    ours, theirs = read_data_set(table, images), read_karpathy(source, images)
    agreed = captions = 0
    for own, record in zip(ours, theirs, strict=True):
        assert (own.split, own.filename) == (record.split, record.filename)
        agreed += len(set(own.captions) & set(record.captions))
        captions += len(set(record.captions))
    assert agreed > 0.999 * captions


def test_words_are_kept_in_memory_once():
    known = {}
    first, second = split_caption("A dog", known), split_caption("Dog", known)
    assert first[1] is second[0]


# ----------------------------------------------------------------------- splits


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Sixty images, of which only names matter here."""
    folder = tmp_path_factory.mktemp("photos")
    for n in range(60):
        paint(folder / f"{n}.png", n, (8, 8))
    return folder


def write_table(path, names, captions=3):
    rows = [
        f"{name},A dog number {n}" for name in names for n in range(captions)
    ]
    random.Random(0).shuffle(rows)
    path.write_text("\n".join(["file,caption", *rows]))
    return path


def splits_of(*args, **options):
    records = read_data_set(*args, **options)
    return {record.filename: record.split for record in records}


def test_images_are_drawn_for_splits_and_the_draw_is_said(tmp_path, photos):
    names = [path.name for path in photos.iterdir()]
    table, notes = write_table(tmp_path / "own.csv", names), []
    splits = splits_of(table, photos, notes=notes)
    counts = [list(splits.values()).count(s) for s in ("TRAIN", "VAL", "TEST")]
    assert counts == [48, 6, 6]
    assert notes == [
        f"{table}: has no splits; drawn by --split-seed 0: 48 images for "
        "train, 6 for val, 6 for test"
    ]
    # The same images, whatever the order of rows; others by another seed.
    again = write_table(tmp_path / "again.csv", sorted(names))
    assert splits_of(again, photos) == splits
    assert splits_of(table, photos, shares=SplitConfig(split_seed=1)) != splits
    # A split that is read alone holds the same images.
    assert splits_of(table, photos, "val") == {
        name: split for name, split in splits.items() if split == "VAL"
    }


def test_more_images_hardly_change_the_draw(tmp_path, photos):
    names = sorted(path.name for path in photos.iterdir())
    before = splits_of(write_table(tmp_path / "own.csv", names[:55]), photos)
    after = splits_of(write_table(tmp_path / "own.csv", names), photos)
    assert sum(before[name] != after[name] for name in before) <= 5


@pytest.mark.parametrize("images", range(1, 13))
@pytest.mark.parametrize(
    "val, test", [(0.1, 0.1), (0, 0), (0.2, 0), (0, 0.2), (0.6, 0.3), (0.9, 0)]
)
def test_three_images_or_more_give_each_split_one(
    tmp_path, photos, images, val, test
):
    table = write_table(
        tmp_path / "own.csv", [f"{n}.png" for n in range(images)], 1
    )
    shares = SplitConfig(val_share=val, test_share=test)
    found = list(splits_of(table, photos, shares=shares).values())
    assert len(found) == images and "TRAIN" in found
    if images >= 3:
        assert ("VAL" in found, "TEST" in found) == (val > 0, test > 0)


def test_shares_leave_images_to_train_on():
    with pytest.raises(ValueError, match="must leave images for training"):
        SplitConfig(val_share=0.5, test_share=0.5)


# ------------------------------------------------------------------- one by one


def test_rows_that_repeat_another_are_left_out_and_counted(tmp_path, photos):
    table, notes = tmp_path / "own.csv", []
    rows = "0.png,A dog,train\n0.png,Dog,train\n1.png,A dog,val\n"
    table.write_text("file,caption,split\n" + rows + rows)
    records = read_data_set(table, photos, notes=notes)
    assert [len(record.captions) for record in records] == [2, 1]
    assert notes == [
        f"{table}: rows that repeat another are left out, 3 in all"
    ]


def test_bad_rows_are_skipped_and_the_others_stay(tmp_path, photos):
    table = tmp_path / "own.csv"
    table.write_text(
        "file,caption,split\n0.png,A dog,train\n0.png,...,train\n,A cat,val\n"
        "gone.png,A cat,val\n1.png,A cat,val\n1.png,A cat, running,val\n"
        "2.png,,test\n3.png,A bird,none\n"
    )
    with pytest.raises(BadItem, match=r"line 4: names no .* \(6 problems in"):
        read_data_set(table, photos)
    skipped = []
    records = read_data_set(table, photos, skipped=skipped)
    assert [(r.filename, r.split, r.captions) for r in records] == [
        ("0.png", "TRAIN", [("a", "dog")]),
        ("1.png", "VAL", [("a", "cat")]),
    ]
    assert len(skipped) == 6
    assert [line for line in skipped if "gone.png: no such image" in line]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_report_datasets_6853_tables_follow_links_and_no_name_climbs_out(
    tmp_path,
):
    secret = paint(tmp_path / "store" / "2f6a81.png", 0)
    images = tmp_path / "images"
    images.mkdir()
    os.symlink(secret, images / "a.png")
    os.symlink(secret.parent, images / "deep")
    table = tmp_path / "own.csv"
    out = "../store/2f6a81.png", "deep/../../store/2f6a81.png", str(secret)
    names = ["a.png", "deep/2f6a81.png", *out, r"deep\..\..\x.png"]
    table.write_text("file,caption\n" + "".join(f"{n},A dog\n" for n in names))
    skipped = []
    records = read_data_set(table, images, skipped=skipped)
    assert [record.filename for record in records] == names[:2]
    assert len(skipped) == 4
    assert all("outside the image folder" in line for line in skipped)


PIECES = [
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\t",
    b"#0",
    b"\0",
    b"\xff",
    b"{",
    b"[",
    b"null",
]
PIECES += [
    b"..",
    b"/",
    b"\\",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"1e999",
    b"NaN",
    b"://",
]
PIECES += [b"\\ud800", b"C:", b"<start>", "\u0301犬".encode()]


@pytest.mark.parametrize("seed", range(10))
def test_damage_at_random_is_never_more_than_one_line(tmp_path, seed):
    rng = random.Random(seed)
    damaged = [odd for odd in ODD.values() if not isinstance(odd.meant, str)]
    for number in range(20):
        odd = rng.choice(damaged)
        folder = tmp_path / str(number)
        folder.mkdir()
        captions, images = odd.write(folder)
        name = rng.choice(list(odd.files))
        content = bytearray(odd.files[name])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(content) + 1)
            content[at : at + rng.randrange(4)] = rng.choice(PIECES)
        (folder / name).write_bytes(content)
        try:
            assert read_data_set(captions, images)
        except InputError as error:
            line = str(error)
            assert line.isprintable() and "; " in line and len(line) < 1500
