"""A generator of odd data sets: what spreadsheets, exports and old archives hold.

Each is a file of captions, perhaps with others beside it, and a folder of
images. It is either read as it was meant, or refused with one line.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("a.png", "b.png", "c.png", "d.png")
TOKENS = "Flickr8k.token.txt"
LISTS = "Flickr_8k.{}Images.txt"


@dataclass
class Odd:
    """One data set, and what should become of it."""

    name: str
    files: dict[str, bytes]  # the first is the file of captions
    # Each image's captions, as lists of words; or what the refusal says.
    meant: dict[str, list[list[str]]] | str
    images: tuple[str, ...] = NAMES
    splits: dict[str, str] = field(default_factory=dict)  # those that matter

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write it; return the file of captions and the image folder."""
        for number, name in enumerate(self.images):
            path = folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_png(number))
        (folder / "images").mkdir(exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder / next(iter(self.files)), folder / "images"


@cache
def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.full((8, 8, 3), 20 * number + 5, np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def said(**captions: str) -> dict[str, list[list[str]]]:
    """`a="x y|z"`: a.png has the captions x y and z."""
    return {
        f"{name}.png": [words.split() for words in each.split("|")]
        for name, each in captions.items()
    }


def table(text: str, meant, name: str = "own.csv", **more) -> tuple:
    return {name: text.encode(more.pop("encoding", "utf-8"))}, meant, more


ABC = said(a="a dog", b="a cat", c="two cats", d="a bird")
CSV = (
    "file,caption\na.png,A dog.\nb.png,A cat.\nc.png,Two cats.\nd.png,A bird.\n"
)
ROWS = CSV.partition("\n")[2]


def coco(images, annotations, **more) -> bytes:
    value = {"info": {}, "images": images, "annotations": annotations, **more}
    return json.dumps(value, ensure_ascii=False).encode()


IMAGES = [{"id": i, "file_name": name} for i, name in enumerate(NAMES)]
SPOKEN = [
    {"id": 9 - i, "image_id": i, "caption": text}
    for i, text in enumerate(("A dog.", "A cat.", "Two cats.", "A bird."))
]


def with_last(items: list[dict], **changed) -> list[dict]:
    return [*items[:-1], items[-1] | changed]


def lists(train="a.png\nb.png\n", dev="c.png\n", test="d.png\n") -> dict:
    three = {"train": train, "dev": dev, "test": test}
    return {LISTS.format(k): v.encode() for k, v in three.items() if v}


TOKEN_LINES = "".join(
    f"{name}#0\t{caption['caption']}\n"
    for name, caption in zip(NAMES, SPOKEN, strict=True)
)


def karpathy(**changed) -> bytes:
    images = [
        {"filename": name, "split": split, "sentences": [{"tokens": words[0]}]}
        for (name, words), split in zip(
            ABC.items(), ("train", "restval", "val", "test"), strict=True
        )
    ]
    images[-1] |= changed
    value = {"dataset": "own", "images": images}
    return json.dumps(value, ensure_ascii=False).encode()


def odd_data_sets() -> Iterator[Odd]:
    """All of them."""
    yield from _renderings()
    for name, (files, meant, more) in (
        _tables() | _refused_tables() | _cocos() | _token_files() | _others()
    ).items():
        yield Odd(name, files, meant, **more)


def _renderings() -> Iterator[Odd]:
    """One table in every encoding, separator and line ending."""
    rows = [
        ("file", "caption"),
        ("a, b.png", 'He said: "sit, dog; sit|down"'),
        ("café.png", "Ein süßer Hund läuft."),
        ("سگ.png", "سگ سیاه می\u200cدود."),
        ("a, b.png", "一只狗。"),
    ]
    meant = {
        "a, b.png": [
            "he said sit dog sit down".split(),
            ["一", "只", "狗"],
        ],
        "café.png": ["ein süßer hund läuft".split()],
        "سگ.png": ["سگ سیاه می\u200cدود".split()],
    }
    encodings = "utf-8", "utf-8-sig", "utf-16", "utf-32"
    for encoding, separator, ending in product(
        encodings, (",", ";", "\t"), ("\n", "\r\n", "\r")
    ):
        text = io.StringIO()
        csv.writer(text, delimiter=separator, lineterminator=ending).writerows(
            rows
        )
        name = f"{encoding}, {separator!r}, {ending!r}"
        content = {"own.txt": text.getvalue().encode(encoding)}
        yield Odd(name, content, meant, tuple(meant))


def _tables() -> dict[str, tuple]:
    """Tables that are read."""
    nfc, nfd = (unicodedata.normalize(f, "é.png") for f in ("NFC", "NFD"))
    one = {"images": ("a.png",)}
    return {
        "one image": table(
            "file,caption\na.png,A dog\n", said(a="a dog"), **one
        ),
        "two images": table(
            "file,caption\na.png,x\nb.png,y\n", said(a="x", b="y")
        ),
        "no line break at the end": table(CSV.rstrip(), ABC),
        "all captions equal": table(
            "file,caption\n" + "".join(f"{n},A dog\n" for n in NAMES),
            {name: [["a", "dog"]] for name in NAMES},
        ),
        "rows twice": table(CSV + ROWS, ABC),
        "the whole file twice, header aside": table(CSV + ROWS + ROWS, ABC),
        "rows of an image apart": table(
            CSV + "a.png,A black dog\n",
            ABC | said(a="a dog|a black dog"),
        ),
        "rows of an image spelled in two ways": table(
            CSV + "./a.png,A black dog\n",
            ABC | said(a="a dog|a black dog"),
        ),
        "one row": table(
            'file,caption\n"a.png","A dog, a cat"', said(a="a dog a cat"), **one
        ),
        "other columns": table(
            "id,Image Name,n,Comment\n7,a.png,0,A dog\n8,b.png,0,A cat\n",
            said(a="a dog", b="a cat"),
        ),
        "columns in another order": table(
            "caption,file\nA dog,a.png\n", said(a="a dog")
        ),
        "column names in capitals and quotation marks": table(
            '"FILE_NAME";"TEXT"\na.png;A dog\n', said(a="a dog")
        ),
        "several columns of captions": table(
            "file,caption 1,caption 2\na.png,A dog,Big dog\nb.png,A cat,\n",
            said(a="a dog|big dog", b="a cat"),
        ),
        "Kaggle's Flickr8k": table(
            "image,caption\na.png,A dog .\na.png,A hound .\n",
            said(a="a dog|a hound"),
            "captions.txt",
        ),
        "Kaggle's Flickr30k": table(
            'image_name| comment_number| comment\na.png| 0| A " dog .\n',
            said(a="a dog"),
            "results.csv",
        ),
        "Excel's line of the separator": table(
            "sep=;\r\n" + CSV.replace(",", ";").replace("\n", "\r\n"), ABC
        ),
        "blank lines and spaces": table(
            "\n\n file , caption \n\n a.png ,  A  dog \n \nb.png,A cat\n\n",
            said(a="a dog", b="a cat"),
        ),
        "separators at the ends of rows": table(
            "file,caption,,\na.png,A dog,,\nb.png,A cat,,,\n",
            said(a="a dog", b="a cat"),
        ),
        "line endings mixed": table(
            "file,caption\r\na.png,A dog\nb.png,A cat\rc.png,Two cats\r\n",
            said(a="a dog", b="a cat", c="two cats"),
        ),
        "a line break in a caption": table(
            'file,caption\na.png,"A dog\nruns"\nb.png,A cat\n',
            said(a="a dog runs", b="a cat"),
        ),
        "doubled quotation marks": table(
            'file,caption\na.png,"A ""good"" dog"\n', said(a="a good dog")
        ),
        "quotation marks in tabs": table(
            'file\tcaption\na.png\t"Sit" says he\nb.png\t"A ""good"" cat"\n',
            said(a="sit says he", b="a good cat"),
        ),
        "one quotation mark in tabs": table(
            'file\tcaption\na.png\t"A dog\nb.png\tA cat"\n',
            said(a="a dog", b="a cat"),
        ),
        "a quotation mark within a cell": table(
            'file,caption\na.png,A 3" dog\n', said(a="a 3 dog")
        ),
        "name with a comma, quotation marks and spaces": table(
            'file,caption\n"my, ""best"" dog.png",A dog\n',
            {'my, "best" dog.png': [["a", "dog"]]},
            images=('my, "best" dog.png',),
        ),
        "report labelme 1725: Windows' folders": table(
            "file,caption\nsub\\a.png,A dog\nsub\\deep\\b.png,A cat\n",
            {"sub/a.png": [["a", "dog"]], "sub/deep/b.png": [["a", "cat"]]},
            images=("sub/a.png", "sub/deep/b.png"),
        ),
        "equal names in two folders": table(
            "file,caption\nx/a.png,A dog\ny/a.png,A cat\n",
            {"x/a.png": [["a", "dog"]], "y/a.png": [["a", "cat"]]},
            images=("x/a.png", "y/a.png"),
        ),
        "report droppy 72: a composed name of a decomposed file": table(
            f"file,caption\n{nfc},A dog\n", {nfd: [["a", "dog"]]}, images=(nfd,)
        ),
        "report droppy 72: a decomposed name of a composed file": table(
            f"file,caption\n{nfd},A dog\n{nfc},A hound\n",
            {nfc: [["a", "dog"], ["a", "hound"]]},
            images=(nfc,),
        ),
        "report droppy 72: decomposed folders": table(
            f"file,caption\n{nfc}/x/{nfc},A dog\n",
            {f"{nfd}/x/{nfd}": [["a", "dog"]]},
            images=(f"{nfd}/x/{nfd}",),
        ),
        "two files whose names look alike": table(
            f"file,caption\n{nfd},A dog\n{nfc},A cat\n",
            {nfd: [["a", "dog"]], nfc: [["a", "cat"]]},
            images=(nfc, nfd),
        ),
        "right to left": table(
            "file,caption\na.png,\u200fכלב רץ בחוץ.\u200e\nb.png,كلب أسود\n",
            said(a="כלב רץ בחוץ", b="كلب أسود"),
        ),
        "scripts without spaces": table(
            "file,caption\na.png,犬が走る。\nb.png,หมาวิ่ง\n",
            said(a="犬 が 走 る", b="ห ม า วิ่ ง"),
        ),
        "words in two normal forms": table(
            "file,caption\na.png,caf\u00e9\nb.png,cafe\u0301\n",
            said(a="caf\u00e9", b="caf\u00e9"),
        ),
        "emoji, hashes and a soft hyphen": table(
            "file,caption\na.png,A 👩‍🚀 dog❤️ #1 fi\u00adsh\n",
            said(a="a dog 1 fish"),
        ),
        "an ideographic space and a line separator": table(
            "file,caption\na.png,A\u3000dog\u2028runs\xa0off\n",
            said(a="a dog runs off"),
        ),
        "a long caption": table(
            f"file,caption\na.png,{'dog ' * 50}\n", said(a="dog " * 50)
        ),
        "splits": table(
            "file,caption,split\na.png,A dog,train\na.png,Dog,train\n"
            "b.png,A cat,Validation\nc.png,Two cats, TEST \nd.png,Bird,restval\n",
            said(a="a dog|dog", b="a cat", c="two cats", d="bird"),
            splits={"b.png": "VAL", "c.png": "TEST", "d.png": "TRAIN"},
        ),
        "an empty column of splits": table(
            "file,caption,split\na.png,A dog,\nb.png,A cat,\nc.png,Cats,\n",
            said(a="a dog", b="a cat", c="cats"),
        ),
        "a name of many dots": table(CSV, ABC, "my.best captions (2).v1.csv"),
        "a name of no letters": table(CSV, ABC, "-.csv"),
        "a long name": table(CSV, ABC, "o" * 240 + ".csv"),
        "a name in another script": table(CSV, ABC, "подписи.csv"),
    }


def _refused_tables() -> dict[str, tuple]:
    long = "x" * 140_000
    return {
        "empty": table("", "is empty"),
        "only white space": table("\ufeff \r\n\n", "is empty"),
        "only column names": table("file,caption\n", "no rows"),
        "no column names": table(
            "a.png,A dog\nb.png,A cat\n", "no column names"
        ),
        "no column of captions": table("file,n\na.png,1\n", "column 'file'"),
        "no column of files": table(
            "id,caption\n1,A dog\n", "column 'caption'"
        ),
        "two columns of files": table(
            "file,file,caption\na.png,b.png,A dog\n", "several columns"
        ),
        "separated by spaces": table(
            "file caption\na.png A dog\n", "no column names"
        ),
        "Latin-1": table(
            CSV + "d.png,süß\n",
            "line 6 is not UTF-8 (byte 76)",
            encoding="latin-1",
        ),
        "Windows' 1252": table(
            CSV + "d.png,“so”\n", "save the file as UTF-8", encoding="cp1252"
        ),
        "Shift-JIS": table(
            CSV + "d.png,犬\n", "not UTF-8", encoding="shift-jis"
        ),
        "UTF-8 cut within a letter": (
            {"own.csv": (CSV + "d.png,ü").encode()[:-1]},
            "line 6 is not UTF-8",
            {},
        ),
        "UTF-16 without its mark": table(
            CSV, "zero byte", encoding="utf-16-le"
        ),
        "UTF-16 cut in two": (
            {"own.csv": CSV.encode("utf-16")[:-1]},
            "is not UTF-16",
            {},
        ),
        "a zero byte": table(
            CSV + "d.png,A\0dog\n", "line 6 holds a zero byte"
        ),
        "an Excel workbook": (
            {"own.xlsx": b"PK\x03\x04\x14\0"},
            "save the sheet as CSV",
            {},
        ),
        "an old Excel workbook": (
            {"own.xls": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"},
            "save the sheet as CSV",
            {},
        ),
        "compressed": ({"own.csv.gz": b"\x1f\x8b\x08"}, "unpack it", {}),
        "an image": ({"own.csv": _png(0)}, "is an image", {}),
        "a quotation mark never closed": table(
            'file,caption\na.png,"A dog\nb.png,A cat\n', "line 2: its quotation"
        ),
        "a quotation mark closed rows later": table(
            'file,caption\na.png,"A dog\nb.png,A cat"\n',
            "line 2: its quotation",
        ),
        "text after a quotation": table(
            'file,caption\na.png,"A dog" runs\n', "line 2: its quotation"
        ),
        "a huge cell": table(
            CSV + f"d.png,{long}\n", "line 6: has a cell of more than 131,072"
        ),
        "a huge name": table(
            CSV + f"{long[:70_000]},A dog\n", "a name of 70000"
        ),
        "a huge name of a split": table(
            f"file,caption,split\na.png,A dog,{long[:9000]}\n", "unknown split"
        ),
        "a comma without quotation marks": table(
            CSV + "a.png,A dog, running\n", "line 6: has 3 columns"
        ),
        "a row without a caption": table(
            CSV + "d.png\n", "line 6: has no caption"
        ),
        "an empty caption": table(CSV + "d.png,  \n", "line 6: has no caption"),
        "a caption of no words": table(
            CSV + "a.png,...\n", "line 6: the caption"
        ),
        "a caption of emoji": table(CSV + "a.png,🐕\n", "has no words"),
        "a row without a name": table(
            CSV + ",A dog\n", "line 6: names no file"
        ),
        "special tokens": table(
            CSV + "a.png,<start> a dog <end>\n", "has '<start>'"
        ),
        "no such image": table(CSV + "z.png,A dog\n", "no such image"),
        "a name in other case": table(
            "file,caption\nA.PNG,A dog\nb.png,A cat\n",
            "name 'a.png', which is there",
        ),
        "a name without its ending": table(CSV + "a,A dog\n", "no such image"),
        "none of the images": table(
            "file,caption\nx.png,A dog\ny.png,A cat\n", "holds none of the 2"
        ),
        "no images at all": table(CSV, "is empty", images=()),
        "a damaged image": (
            {"own.csv": f"{CSV}e.png,A\n".encode(), "images/e.png": b"\x89PNG"},
            "e.png: ",
            {},
        ),
        "report sigal 436: a web address": table(
            CSV + "https://example.org/dog.jpg,A dog\n", "is a web address"
        ),
        "report sigal 436: only web addresses": table(
            "image_url,caption\nHTTP://example.org/dog.jpg,A dog\n",
            "web address",
        ),
        "an image within the table": table(
            CSV + '"data:image/png;base64,iVBORw0KGgo=",A dog\n',
            "holds an image where a file is wanted",
        ),
        "a name that climbs out": table(
            CSV + "../own.csv,A dog\n", "outside the image folder"
        ),
        "a name that climbs out by Windows' way": table(
            CSV + "x\\..\\..\\own.csv,A dog\n", "outside the image folder"
        ),
        "an absolute name": table(CSV + "/etc/passwd,A\n", "outside the image"),
        "a drive": table(CSV + "C:\\dogs\\a.png,A dog\n", "outside the image"),
        "an unknown split": table(
            "file,caption,split\na.png,A dog,train\nb.png,A cat,holdout\n",
            "line 3: has the unknown split 'holdout'",
        ),
        "some splits": table(
            "file,caption,split\na.png,A dog,train\nb.png,A cat,\n",
            "image 'b.png' has no split",
        ),
        "an image in two splits": table(
            "file,caption,split\na.png,A dog,train\na.png,A hound,val\n",
            "line 3: 'a.png' has another split",
        ),
        "nothing to train on": table(
            "file,caption,split\na.png,A dog,val\nb.png,A cat,test\n",
            "no image to train on",
        ),
    }


def _cocos() -> dict[str, tuple]:
    def one(content: bytes, meant, **more) -> tuple:
        return {"captions.json": content}, meant, more

    train = coco(IMAGES[:3], SPOKEN[:3])
    val = coco(with_last(IMAGES, id=0)[3:], with_last(SPOKEN, image_id=0)[3:])
    pair = {"captions_train2017.json": train, "captions_val2017.json": val}
    halves = {name: "TRAIN" for name in NAMES[:3]} | {"d.png": "VAL"}
    deep = {f"train2017/{name}": ABC[name] for name in NAMES[:3]}
    deep["val2017/d.png"] = ABC["d.png"]
    deep_splits = dict(zip(deep, halves.values(), strict=True))
    doubled = SPOKEN + [{"image_id": 0, "caption": "A hound."}]
    return {
        "COCO's": one(coco(IMAGES, SPOKEN), ABC),
        "COCO's, with a mark": one(b"\xef\xbb\xbf" + coco(IMAGES, SPOKEN), ABC),
        "COCO's, annotations in another order": one(
            coco(IMAGES, SPOKEN[::-1]), ABC
        ),
        "COCO's, several captions": one(
            coco(IMAGES, doubled), ABC | said(a="a dog|a hound")
        ),
        "COCO's two files in one folder of images": (
            pair,
            ABC,
            {"splits": halves},
        ),
        "COCO's two files and two folders": (
            pair,
            deep,
            {"images": tuple(deep), "splits": deep_splits},
        ),
        "COCO's file of validation alone": (
            {"captions_val2017.json": coco(IMAGES, SPOKEN)},
            ABC,
            {},
        ),
        "COCO's, with splits": one(
            coco(
                [
                    image | {"split": split}
                    for image, split in zip(
                        IMAGES, ("train", "train", "val", "test"), strict=True
                    )
                ],
                SPOKEN,
            ),
            ABC,
            splits={"c.png": "VAL", "d.png": "TEST"},
        ),
        "COCO's, ids as text and as decimals": one(
            coco(
                [image | {"id": str(image["id"])} for image in IMAGES],
                [
                    each | {"image_id": float(each["image_id"])}
                    for each in SPOKEN
                ],
            ),
            ABC,
        ),
        "COCO's, a line break in a caption": one(
            coco(IMAGES, with_last(SPOKEN, caption="A\nbird.\n")), ABC
        ),
        "COCO's, boxes": one(
            coco(IMAGES, [{"image_id": 0, "bbox": [0, 0, 1, 1]}]), "no captions"
        ),
        "COCO's, no annotations": one(
            coco(IMAGES, []), "'annotations' is not a list"
        ),
        "COCO's, no images": one(coco([], SPOKEN), "'images' is not a list"),
        "COCO's, an annotation without an image": one(
            coco(IMAGES, with_last(SPOKEN, image_id=99)), "isn't listed, 99"
        ),
        "COCO's, an image without captions": one(
            coco(IMAGES, SPOKEN[:3]), "'d.png' has no captions"
        ),
        "COCO's, an id twice": one(
            coco(with_last(IMAGES, id=0), SPOKEN), "the same id as another, 0"
        ),
        "COCO's, a file twice": one(
            coco(with_last(IMAGES, file_name="a.png"), SPOKEN), "listed twice"
        ),
        "COCO's, no file name": one(
            coco(with_last(IMAGES, file_name=None), SPOKEN), 'no "file_name"'
        ),
        "COCO's, no id": one(
            coco(with_last(IMAGES, id=None), SPOKEN), 'image 3 has no "id"'
        ),
        "COCO's, a caption that is a number": one(
            coco(IMAGES, with_last(SPOKEN, caption=7)),
            'no "caption" that is text',
        ),
        "COCO's, an annotation that is none": one(
            coco(IMAGES, [*SPOKEN, None]), 'no "image_id"'
        ),
        "COCO's, a name that climbs out": one(
            coco(with_last(IMAGES, file_name="../d.png"), SPOKEN), "outside"
        ),
        "COCO's, half a surrogate": one(
            coco(IMAGES, SPOKEN).replace(b"A bird.", b"A \\ud83d bird."), ABC
        ),
        "COCO's, cut": one(coco(IMAGES, SPOKEN)[:-9], "is not JSON"),
        "COCO's two files, one of them other": (
            pair | {"captions_val2017.json": b"[]"},
            "is not COCO's format",
            {},
        ),
    }


def _token_files() -> dict[str, tuple]:
    def one(text: str, meant, **more) -> tuple:
        beside = more.pop("lists", {})
        return {TOKENS: text.encode()} | beside, meant, more

    splits = dict(zip(NAMES, ("TRAIN", "TRAIN", "VAL", "TEST"), strict=True))
    return {
        "tokens": one(TOKEN_LINES, ABC),
        "tokens, with lists": one(
            TOKEN_LINES, ABC, lists=lists(), splits=splits
        ),
        "tokens, with Windows' line endings": one(
            TOKEN_LINES.replace("\n", "\r\n"),
            ABC,
            lists=lists("a.png\r\nb.png"),
            splits=splits,
        ),
        "tokens, equal captions": one(
            TOKEN_LINES + "a.png#1\tA dog.\n", ABC | said(a="a dog|a dog")
        ),
        "tokens, an image on no list": one(
            TOKEN_LINES + "d.jpg.1#0\tA bird\n",
            ABC,
            lists=lists(),
            splits=splits,
        ),
        "tokens, a hash and a tab more": one(
            TOKEN_LINES + "a#1.png#0\tA #1\tdog\n",
            ABC | {"a#1.png": [["a", "1", "dog"]]},
            images=(*NAMES, "a#1.png"),
        ),
        "tokens, a list missing": one(
            TOKEN_LINES, "put all three there", lists=lists(dev="")
        ),
        "tokens, an empty list": one(
            TOKEN_LINES, "devImages.txt: is empty", lists=lists(dev="\n")
        ),
        "tokens, an image on two lists": one(
            TOKEN_LINES, "a.png is in", lists=lists(dev="c.png\na.png")
        ),
        "tokens, a list with an unknown image": one(
            TOKEN_LINES,
            "z.png has no captions",
            lists=lists(dev="c.png\nz.png"),
        ),
        "tokens, a line of another form": one(
            TOKEN_LINES + "a.png A dog\n", "line 5: is not of the form"
        ),
        "tokens, a line without a caption": one(
            TOKEN_LINES + "a.png#1\t\n", "line 5: the caption has no words"
        ),
        "tokens, a number twice": one(
            TOKEN_LINES + "a.png#0\tA hound\n", "a.png#0 is there twice"
        ),
        "tokens, a name that climbs out": one(
            TOKEN_LINES + "../a.png#0\tA hound\n", "outside the image folder"
        ),
    }


def _others() -> dict[str, tuple]:
    def one(content: bytes, meant) -> tuple:
        return {"own.json": content}, meant, {}

    return {
        "Karpathy's": one(karpathy(), ABC),
        "Karpathy's in UTF-16": one(karpathy().decode().encode("utf-16"), ABC),
        "Karpathy's in Latin-1": one(
            karpathy(raw="süß").decode().encode("latin-1"), "is not UTF-8"
        ),
        "Karpathy's, Windows' folders": one(karpathy(filename=".\\d.png"), ABC),
        "Karpathy's, a web address": one(
            karpathy(filename="http://example.org/d.png"), "is a web address"
        ),
        "Karpathy's, a data set's long name": one(
            karpathy().replace(b'"own"', b'"' + b"o" * 300 + b'"'),
            "a few letters",
        ),
        "a list of objects": one(b'[{"image": "a.png"}]', "holds a list"),
        "a JSON object a line": one(b'{"file": "a.png"}\n{}\n', "is not JSON"),
        "a number": one(b"7", "holds a int"),
        "JSON of many brackets": one(b"[" * 100_000, "is not JSON"),
        "a table called JSON": one(CSV.encode(), "is not JSON"),
    }
