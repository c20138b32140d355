import json
import os
import sys

import pytest
from trees import coco_tree, entry, flickr_tree, paint, write_json_file

from captionlib.io.files import BadItem, InputError
from captionlib.io.karpathy import read_karpathy


def write(tmp_path, *entries, dataset="flickr8k"):
    return write_json_file(tmp_path / "dataset.json", dataset, list(entries))


@pytest.fixture
def images(tmp_path):
    for number, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        paint(tmp_path / "images" / name, number)
    return tmp_path / "images"


def test_flickr_is_read_in_its_order(tmp_path):
    karpathy_json, images = flickr_tree(tmp_path)
    records = read_karpathy(karpathy_json, images)
    assert [r.split for r in records] == ["TRAIN"] * 4 + ["VAL"] * 2 + [
        "TEST"
    ] * 2
    listed = json.loads(karpathy_json.read_text())["images"]
    for record, image in zip(records, listed, strict=True):
        assert (
            record.dataset == "flickr8k"
            and record.filename == image["filename"]
        )
        assert record.path == images / image["filename"]
        assert [list(c) for c in record.captions] == [
            s["tokens"] for s in image["sentences"]
        ]


def test_coco_has_folders_and_trains_on_restval(tmp_path):
    records = read_karpathy(*coco_tree(tmp_path))
    assert [r.split for r in records] == [
        "TRAIN",
        "TRAIN",
        "VAL",
        "TRAIN",
        "TEST",
    ]
    assert records[1].filename == "val2014/COCO_val2014_000000000001.jpg"
    assert all(r.path.is_file() and len(r.captions) == 6 for r in records)


def test_equal_names_in_different_folders_are_different_images(tmp_path):
    for folder in ("train2014", "val2014"):
        paint(tmp_path / "images" / folder / "a.jpg", 0)
    karpathy_json = write(
        tmp_path,
        entry("a.jpg", "train", [["x"]], filepath="train2014"),
        entry("a.jpg", "restval", [["x"]], filepath="val2014"),
    )
    assert len(read_karpathy(karpathy_json, tmp_path / "images")) == 2


@pytest.mark.parametrize(
    "splits, expected",
    [
        ("test", {"TEST"}),
        ("VAL", {"VAL"}),
        (("val", "test"), {"VAL", "TEST"}),
        ("restval", {"TRAIN"}),
    ],
)
def test_a_split_is_picked_and_only_its_images_are_looked_for(
    tmp_path, splits, expected
):
    karpathy_json, images = coco_tree(tmp_path)
    for record in read_karpathy(karpathy_json, images):
        if record.split not in expected:
            record.path.unlink()
    assert {
        r.split for r in read_karpathy(karpathy_json, images, splits)
    } == expected


def test_words_are_kept_in_memory_once(tmp_path):
    records = read_karpathy(*coco_tree(tmp_path))
    assert records[0].captions[0][1] is records[3].captions[5][1] == "zebra"


def test_no_such_split(tmp_path):
    with pytest.raises(InputError, match="'dev'.*train, val or test"):
        read_karpathy(*flickr_tree(tmp_path), "dev")
    with pytest.raises(InputError, match="lists no usable image for test"):
        read_karpathy(*flickr_tree(tmp_path, test=0), "test")


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("not JSON", "is not JSON"),
        ("", "is empty"),
        ("[]", "holds a list"),
        ("7", "holds a int"),
        ("{}", 'no "dataset" str'),
        ('{"dataset": "x"}', 'no "images" list'),
        ('{"dataset": "x", "images": {}}', 'no "images" list'),
        ('{"dataset": "x", "images": []}', '"images" is empty'),
        ('{"images": [{"filename": "a.jpg"}]}', 'no "dataset" str'),
        ('{"dataset": "../x", "images": [1]}', "becomes part of file names"),
        ('{"dataset": "", "images": [1]}', "becomes part of file names"),
        ('{"dataset": "x", "images": [7]}', "image 0 is not an object"),
        ('{"dataset": "x", "images": [{}]}', 'image 0 has no "filename" str'),
        (
            '{"dataset": "x", "images": [{"filename": 7}]}',
            'image 0 has no "filename" str',
        ),
        (
            '{"dataset": "x", "images": [{"filename": "a.jpg"}]}',
            'no "split" str',
        ),
        (
            '{"dataset": "x", "images": [{"filename": "a.jpg", "split": "train"}]}',
            'no "sentences" list',
        ),
        (  # COCO's own annotation format
            '{"info": {}, "images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}',
            'no "dataset" str',
        ),
    ],
)
def test_a_json_that_is_not_karpathys(tmp_path, images, text, complaint):
    path = tmp_path / "other.json"
    path.write_text(text)
    for skipped in (None, []):
        with pytest.raises(InputError) as caught:
            read_karpathy(path, images, skipped=skipped)
        message = str(caught.value)
        assert (
            message.startswith(f"{path}: ")
            and ";" in message
            and "\n" not in message
        )
        if skipped is None:
            assert complaint in message


GOOD = entry("a.jpg", "train", [["a", "dog"]])
BAD = {
    "missing": (entry("no.jpg", "train", [["x"]]), "no.jpg: no such image"),
    "a folder": (entry(".", "train", [["x"]]), "no such image"),
    "no name": (entry("", "train", [["x"]]), "is wrong"),
    "unknown split": (entry("b.jpg", "dev", [["x"]]), "unknown split 'dev'"),
    "listed twice": (GOOD, "'a.jpg' is listed twice"),
    "twice, spelt otherwise": (
        entry("./a.jpg", "val", [["x"]]),
        "is listed twice",
    ),
    "parent": (
        entry("../secret.jpg", "train", [["x"]]),
        "outside the image folder",
    ),
    "parent by the way": (
        entry("sub/../../secret.jpg", "train", [["x"]]),
        "outside",
    ),
    "parent in filepath": (
        entry("secret.jpg", "train", [["x"]], filepath=".."),
        "outside",
    ),
    "backslashes": (
        entry("..\\secret.jpg", "train", [["x"]]),
        "outside the image folder",
    ),
    "absolute": (
        entry("/etc/passwd", "train", [["x"]]),
        "outside the image folder",
    ),
    "absolute after a folder": (
        entry("/etc/passwd", "train", [["x"]], filepath="x"),
        "outside",
    ),
    "absolute filepath": (
        entry("passwd", "train", [["x"]], filepath="/etc"),
        "outside",
    ),
    "zero byte": (
        entry("a.jpg\0.png", "train", [["x"]]),
        "outside the image folder",
    ),
    "line break": (entry("a\nb.jpg", "train", [["x"]]), "no such image"),
    "filepath no text": (
        entry("b.jpg", "train", [["x"]], filepath=7),
        "is wrong",
    ),
    "no captions": (entry("b.jpg", "train", []), "has no captions"),
    "only empty captions": (
        entry("b.jpg", "train", [[], []]),
        "caption 0 has no tokens",
    ),
    "not an object": ("b.jpg", "image 1 is not an object"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_bad_image_is_one_line_or_is_skipped(tmp_path, images, case):
    bad, complaint = BAD[case]
    paint(tmp_path / "secret.jpg", 9)
    karpathy_json = write(
        tmp_path, GOOD, bad, entry("c.jpg", "val", [["a", "cat"]])
    )
    with pytest.raises(InputError) as caught:
        read_karpathy(karpathy_json, images)
    message = str(caught.value)
    assert complaint in message and str(tmp_path) in message
    assert ";" in message and "\n" not in message
    skipped = []
    records = read_karpathy(karpathy_json, images, skipped=skipped)
    assert [r.filename for r in records] == ["a.jpg", "c.jpg"]
    assert skipped == [message]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_report_datasets_6853_links_are_followed_and_names_stay_inside(
    tmp_path, images
):
    """Every image may be a link to a store, as Hugging Face and DVC keep them;
    no name in a JSON from somewhere else leads out."""
    store = paint(tmp_path / "store" / "2f6a81.jpg", 9)
    for image in images.iterdir():
        image.unlink()
        os.symlink(store, image)
    os.symlink(store.parent, images / "folder")
    names = ["a.jpg", "b.jpg", "folder/2f6a81.jpg"]
    out = ["../store/2f6a81.jpg", str(store), "folder/../../store/2f6a81.jpg"]
    out += ["..\\store\\2f6a81.jpg", "C:\\store\\2f6a81.jpg", "c:2f6a81.jpg"]
    out += ["\\\\server\\2f6a81.jpg", "folder\\..\\..\\store\\2f6a81.jpg"]
    karpathy_json = write(
        tmp_path, *(entry(name, "train", [["x"]]) for name in names + out)
    )
    skipped = []
    records = read_karpathy(karpathy_json, images, skipped=skipped)
    assert [record.filename for record in records] == names
    assert all(r.path.read_bytes() == store.read_bytes() for r in records)
    assert len(skipped) == len(out)
    assert all("lies outside the image folder; " in line for line in skipped)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_a_file_that_is_gone(tmp_path, images):
    os.symlink(tmp_path / "gone", images / "link.jpg")
    karpathy_json = write(tmp_path, GOOD, entry("link.jpg", "val", [["x"]]))
    with pytest.raises(BadItem, match="link.jpg: is a link to a file that is"):
        read_karpathy(karpathy_json, images)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_the_folder_itself_may_be_a_link_and_links_may_stay_inside(
    tmp_path, images
):
    os.symlink(images, tmp_path / "linked")
    os.symlink("a.jpg", images / "same.jpg")
    karpathy_json = write(tmp_path, GOOD, entry("same.jpg", "train", [["x"]]))
    assert len(read_karpathy(karpathy_json, tmp_path / "linked")) == 2


def assert_caption_1_is_refused_or_skipped(tmp_path, images, tokens, reason):
    karpathy_json = write(
        tmp_path, entry("a.jpg", "train", [["a", "dog"], tokens, ["a", "cat"]])
    )
    with pytest.raises(BadItem) as caught:
        read_karpathy(karpathy_json, images)
    message = str(caught.value)
    assert message.startswith(
        f"{karpathy_json}: image 'a.jpg': caption 1 {reason}"
    )
    assert "; " in message and message.isprintable()
    skipped = []
    (record,) = read_karpathy(karpathy_json, images, skipped=skipped)
    assert record.captions == [("a", "dog"), ("a", "cat")]
    assert skipped == [message]


@pytest.mark.parametrize(
    "tokens, reason",
    [
        ([], "has no tokens"),
        ("a dog", "has no tokens"),
        ([""], "has the token '', which is not a word"),
        (["a", 7], "has the token 7, which is not a word"),
        ([None], "has the token None, which is not a word"),
        ([[]], "has the token [], which is not a word"),
        ([{"a": 1}], "has the token {'a': 1}, which is not a word"),
        (["\ud800"], r"has the token '\ud800', which can't be written"),
    ],
)
def test_a_caption_without_words_is_skipped_and_the_others_stay(
    tmp_path, images, tokens, reason
):
    assert_caption_1_is_refused_or_skipped(tmp_path, images, tokens, reason)


@pytest.mark.parametrize(
    "token",
    ["runs\n", "\tdog", "a dog", " ", "a\xa0dog", "a\u2009dog", "a\u3000dog"]
    + ["\x85", "a\u2028dog", "dog\r\n"],
)
def test_report_coco_caption_25_white_space_in_a_token_is_named(
    tmp_path, images, token
):
    reason = f"has the token {token!r}, which holds white space"
    tokens = ["a", token, "runs"]
    assert_caption_1_is_refused_or_skipped(tmp_path, images, tokens, reason)


@pytest.mark.parametrize(
    "token",
    ["a\u200bdog", "\ufeffdog", "dog\x00", "\x1b[31m", "\u200fdog", "do\xadg"],
)
def test_report_coco_caption_25_invisible_characters_are_named(
    tmp_path, images, token
):
    reason = f"has the token {token!r}, which holds an invisible character"
    assert_caption_1_is_refused_or_skipped(tmp_path, images, [token], reason)


@pytest.mark.parametrize(
    "token", ["<start>", "<end>", "<pad>", "<unk>", "<UNK>", "<End>"]
)
def test_report_keras_io_1346_special_tokens_in_captions_are_refused(
    tmp_path, images, token
):
    reason = f"has the token {token!r}, which captionlib adds itself"
    tokens = ["a", "dog", token]
    assert_caption_1_is_refused_or_skipped(tmp_path, images, tokens, reason)


def test_report_underthesea_161_one_word_in_two_normal_forms(tmp_path, images):
    """Training captions and references alike."""
    composed, decomposed = "caf\xe9", "cafe\u0301"
    assert composed != decomposed
    karpathy_json = write(
        tmp_path,
        entry("a.jpg", "train", [["a", composed], ["a", decomposed]]),
        entry("b.jpg", "val", [[decomposed]]),
    )
    training, validation = read_karpathy(karpathy_json, images)
    assert training.captions == [("a", composed)] * 2
    assert training.captions[0][1] is training.captions[1][1]
    assert validation.captions == [(composed,)]


@pytest.mark.parametrize(
    "word",
    [
        "\u0645\u06cc\u200c\u0631\u0648\u062f",
        "\u0915\u094d\u200d\u0937",
        "don't",
        "t-shirt",
    ]
    + ["\U0001f469\u200d\U0001f680", "<", "<s>", "$100", "\u72ac"],
)
def test_words_of_every_script_are_words(tmp_path, images, word):
    karpathy_json = write(tmp_path, entry("a.jpg", "train", [[word]]))
    (record,) = read_karpathy(karpathy_json, images)
    assert record.captions == [(word,)]


def test_a_sentence_without_tokens(tmp_path, images):
    bad = entry("a.jpg", "train", [["x"]])
    bad["sentences"] = [{"raw": "A dog."}, "A cat."]
    with pytest.raises(InputError, match="caption 0 has no tokens"):
        read_karpathy(write(tmp_path, bad), images)


def test_all_problems_are_counted_at_once(tmp_path, images):
    karpathy_json = write(tmp_path, GOOD, *(case[0] for case in BAD.values()))
    with pytest.raises(InputError, match=r"\(\d\d problems in all\)$"):
        read_karpathy(karpathy_json, images)


def test_the_wrong_folder(tmp_path):
    karpathy_json, images = flickr_tree(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    for skipped in (None, []):
        with pytest.raises(InputError, match="empty: is empty"):
            read_karpathy(karpathy_json, empty, skipped=skipped)
        with pytest.raises(InputError, match="gone: no such folder"):
            read_karpathy(karpathy_json, tmp_path / "gone", skipped=skipped)
        with pytest.raises(
            InputError,
            match="holds none of the 8 images .* such as 1000268201_tr",
        ):
            read_karpathy(karpathy_json, tmp_path, skipped=skipped)
