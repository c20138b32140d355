"""The pages around the chapters: what they promise is there, and what they print works."""

import base64
import io
import json
import re
import shlex
import shutil
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import jupytext
import matplotlib
import numpy as np
import pytest
from PIL import Image
from pybtex.database import parse_file

from captionlib.cli.arguments import make_parser
from captionlib.io.files import ASSETS
from captionlib.io.karpathy import read_karpathy
from tools import data_sets, find_chapters, gallery, results

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "book"
_spec = spec_from_file_location("draw", BOOK / "figures" / "draw.py")
draw = module_from_spec(_spec)
_spec.loader.exec_module(draw)
PAGES = [ROOT / "README.md", *sorted(BOOK.glob("*.md"))]
CHAPTERS = sorted(ROOT.glob("notebooks/*.py"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"^```\{figure\} (\S+)\n:alt: (.*)\n", re.MULTILINE)


def text(name: str) -> str:
    """A page's text on one line, so that line breaks don't hide a phrase."""
    return " ".join((BOOK / name).read_text(encoding="utf-8").split())


def blocks(page: Path, language: str) -> list[str]:
    """The page's fenced code in one language."""
    return [
        code
        for kind, code in FENCE.findall(page.read_text())
        if kind == language
    ]


def commands() -> list[str]:
    """Every captionlib command that a page prints, continued lines joined."""
    shell = "\n".join(code for page in PAGES for code in blocks(page, "bash"))
    return [
        line
        for line in shell.replace("\\\n", " ").splitlines()
        if line.startswith("captionlib")
    ]


# ---------------------------------------------------------------------------- facts in their place

# The original tutorial's questions, and words without which the answer would be poorer than there.
QUESTIONS = {
    "faq-hard": "REINFORCE | lower bound | differentia | ahead | sampl|draw",
    "faq-seq2seq": "translation | classify | last | weighted average | longer the sentence",
    "faq-beam-training": "cross-entropy | Wiseman | CIDEr",
    "faq-teacher-forcing": "scheduled sampling | Huszár | true",
    "faq-embeddings": "load_pretrained_embeddings | fine_tune_embeddings | random | <start>",
    "faq-gradients": "requires_grad | Variable | parameter | 0.4",
    "faq-bleu": "BLEU-1 | BLEU-4 | corpus_bleu | weights",
}


def answer(anchor: str) -> str:
    page = (BOOK / "faq.md").read_text(encoding="utf-8")
    assert page.count(f"({anchor})=\n### ") == 1
    rest = page.split(f"({anchor})=\n### ")[1]
    return " ".join(
        re.split(r"^\([\w-]+\)=$|^## ", rest, flags=re.MULTILINE)[0].split()
    )


@pytest.mark.parametrize("anchor", QUESTIONS)
def test_every_question_of_the_original_is_answered(anchor):
    found = answer(anchor)
    assert len(found.split()) > 60
    for words in QUESTIONS[anchor].split(" | "):
        assert re.search(words, found, re.IGNORECASE), words


FACTS = {
    "concepts.md": [
        "state of the art|not what you would choose today",
        "14×14 with 2048 channels",
        "ResNet-101",
        "thousand classes",
        "VGG",
        "8×8 grid",
        "blocks 2 to 4",
        "edges, lines and curves",
        "LSTM",
        "average the grid",
        "weighted average",
        r"\\sum_\{p=1\}\^\{P\} \\alpha_\{t,p\} = 1",
        "read .* as a probability",
        "every step|each step",
        "greedy",
        "sum of its words' log-probabilities",
        "third-best word",
        "drop out",
        "word vectors",
        "fine-tuned",
    ],
    "data.md": [
        "13.5 GB",
        "6.6 GB",
        "82,783 \\+ 30,504",
        "6,000",
        "29,000",
        "restval",
        "CC BY 4.0",
    ],
    "command_line.md": ["train2014", "val2014"],
    "results.md": [
        "23.25",
        "24.29",
        "29.98",
        "32.95",
        "33.17",
        "19.5",
        "21.3",
        "24.3",
        "25.0",
    ],
    "welcome.md": [
        "convolutional and recurrent",
        "PyTorch",
        "where is it looking",
    ],
}


@pytest.mark.parametrize(
    ("page", "fact"), [(p, f) for p in FACTS for f in FACTS[p]]
)
def test_the_originals_facts_have_their_place(page, fact):
    assert re.search(fact, text(page), re.IGNORECASE)


def test_chapter_10_has_the_originals_settings():
    prose = (ROOT / "notebooks" / "10_gpu_training.py").read_text(
        encoding="utf-8"
    )
    for fact in ("80 | 32", "4e-4", "1e-4", "55 minutes | 2.5 hours", "Titan X (Pascal)", "13th",
                 "23.25 | 24.29", "29.98, 32.95 and 33.17"):  # fmt: skip
        assert fact in prose, fact


# ------------------------------------------------------------------------------------- the map


def test_the_welcome_page_maps_every_chapter_to_its_module():
    page = (BOOK / "welcome.md").read_text(encoding="utf-8")
    for chapter in CHAPTERS:
        module = (
            jupytext.read(chapter).metadata.get("captionlib", {}).get("module")
        )
        row = next(
            line
            for line in page.splitlines()
            if f"notebooks/{chapter.stem}.ipynb) |" in line
        )
        assert row.startswith(f"| [{chapter.stem[:2]} ")
        assert row.endswith(f"| `captionlib.{module}` |" if module else "| – |")
    assert len(find_chapters(ROOT)) == page.count(".ipynb) | ")


# --------------------------------------------------------------------------------- bibliography


def test_citations_resolve_and_the_list_of_keys_is_right():
    entries = parse_file(BOOK / "references.bib").entries
    cited = set()
    for path in [*PAGES, *CHAPTERS]:
        for keys in re.findall(
            r"\{cite\}`([^`]+)`", path.read_text(encoding="utf-8")
        ):
            cited |= {key.strip() for key in keys.split(",")}
    assert cited <= set(entries), cited - set(entries)
    head = (BOOK / "references.bib").read_text(encoding="utf-8").split("\n@")[0]
    assert set(re.findall(r"\b[a-z]+\d{4}\b", head)) == set(entries)


def test_bibliography_entries_are_complete_and_keyed_by_first_author_and_year():
    for key, entry in parse_file(BOOK / "references.bib").entries.items():
        surname = "".join(entry.persons["author"][0].last_names).lower()
        letters = re.sub(
            r"\{\\.\{?(\w)\}?\}|[^a-z]", r"\1", surname.replace("á", "a")
        )
        assert key == f"{letters}{entry.fields['year']}"
        assert entry.fields["title"]
        place = {
            "inproceedings": "booktitle",
            "article": "journal",
            "phdthesis": "school",
        }
        assert entry.fields[place.get(entry.type, "url")]
        if "arXiv:" in entry.fields.get("note", ""):
            assert entry.fields["url"].endswith(
                entry.fields["note"].removeprefix("arXiv:")
            )


# -------------------------------------------------------------------------------------- pictures


def test_every_picture_of_the_pages_exists_and_says_what_it_shows():
    shown = set()
    for page in PAGES:
        content = page.read_text(encoding="utf-8")
        pictures = [(alt, link) for link, alt in FIGURE.findall(content)]
        assert len(pictures) == content.count("{figure}")
        pictures += re.findall(r"!\[(.*?)\]\((.*?)\)", content)
        for alt, link in pictures:
            assert (page.parent / link).is_file()
            assert len(alt.split()) >= 12, (
                f"{page.name}: {link}: alt text too short"
            )
            shown.add(Path(link).name)
    drawn = {f"{name}.svg" for name in draw.FIGURES} | {
        "first-look.webp",
        "toy-scenes.jpg",
        "toy-settings.jpg",
        "own-pictures.jpg",
        "verbs-world.jpg",
        "bench.svg",
    }
    photographs = json.loads(
        (BOOK / "gallery" / "photographs.json").read_text(encoding="utf-8")
    )
    assert shown <= drawn | gallery.pictures(photographs)


# Others place the same things a little differently.
as_stored = pytest.mark.skipif(
    matplotlib.__version_info__ < (3, 11),
    reason="pictures are stored as matplotlib 3.11 draws them",
)


@as_stored
@pytest.mark.parametrize("name", draw.FIGURES)
def test_a_stored_picture_is_what_the_code_draws(name):
    """The same shapes and words; numbers and pixels may differ by a rounding.

    Versions of matplotlib round differently, and so do processors: a map that
    one of them computed may be a level brighter somewhere on another.
    """
    stored = (BOOK / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    now, now_images = without_images(draw.svg(name))
    then, then_images = without_images(stored)
    number = re.compile(r"-?\d+\.\d+")
    assert number.split(now) == number.split(then), (
        "run python book/figures/draw.py"
    )
    pairs = zip(number.findall(now), number.findall(then), strict=True)
    assert all(abs(float(a) - float(b)) < 0.01 for a, b in pairs)
    for a, b in zip(now_images, then_images, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 2


def without_images(svg: str) -> tuple[str, list[np.ndarray]]:
    """The drawing without its embedded pictures and their hashes; their pixels."""
    embedded = re.compile(r'data:image/png;base64,([^"]+)" id="image\w+"')
    images = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), dtype=int)
        for data in embedded.findall(svg)
    ]
    return embedded.sub("", svg), images


def test_pictures_have_shapes_and_colours_for_the_dark():
    assert set(draw.DARK) == set(draw.LIGHT)
    for name in draw.FIGURES:
        svg = (BOOK / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert "@media (prefers-color-scheme: dark)" in svg
        style, body = svg.split("</style>", 1)
        used = set(re.findall(r"var\(--([a-z-]+), #", body))
        assert used <= set(re.findall(r"--([a-z-]+):#", style))
        assert {"ground", "ink"} <= used
        bare = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", body)) - {
            "#ffffff"
        }
        assert not bare, f"{name}: {bare} would stay as they are in the dark"


@as_stored
def test_the_toy_picture_is_what_the_toy_captioner_says(tmp_path):
    said = draw.first_look(tmp_path)
    assert (tmp_path / "first-look.webp").stat().st_size < 300_000
    page = (BOOK / "welcome.md").read_text(encoding="utf-8")
    assert f'"{said}"' in page, "run python book/figures/draw.py"
    stored, drawn = (
        np.asarray(Image.open(folder / "first-look.webp"), dtype=float)
        for folder in (BOOK / "figures", tmp_path)
    )
    assert (
        stored.shape == drawn.shape and np.abs(stored - drawn).mean() < 0.2
    ), "draw it anew"


@pytest.mark.parametrize(
    "name", ["toy-scenes", "toy-settings", "own-pictures", "verbs-world"]
)
def test_the_toy_worlds_pictures_are_what_the_code_draws(name, tmp_path):
    getattr(draw, name.replace("-", "_"))(tmp_path)
    stored, drawn = (
        np.asarray(Image.open(folder / f"{name}.jpg"), dtype=float)
        for folder in (BOOK / "figures", tmp_path)
    )
    assert stored.shape == drawn.shape
    assert np.abs(stored - drawn).mean() < 0.2, "draw it anew"


def test_the_pictures_have_a_white_ground_and_no_date():
    for path in (BOOK / "figures").glob("*.svg"):
        svg = path.read_text(encoding="utf-8")
        if "matplotlib" in svg:
            assert "fill: var(--ground, #ffffff)" in svg
            assert "<dc:date>" not in svg
        assert len(svg) < 150_000


# ------------------------------------------------------------------------- what is printed is run


@pytest.mark.parametrize("command", commands())
def test_printed_commands_are_ones_that_captionlib_knows(command):
    arguments = shlex.split(command, comments=True)[1:]
    parsed = make_parser().parse_args(arguments)
    assert parsed.command == arguments[0]


def test_an_unknown_option_would_be_noticed():
    with pytest.raises(ValueError, match="--bream-size"):
        make_parser().parse_args(["caption", "a.jpg", "--bream-size", "3"])


def test_the_make_targets_of_the_pages_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    prose = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", prose, re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {"book", "test", "lab"} <= named <= targets
    printed = set(
        re.findall(
            r"\| `make ([a-z-]+)` \|", (ROOT / "CONTRIBUTING.md").read_text()
        )
    )
    assert printed == targets - {"help"}


def test_the_python_of_the_questions_runs_as_printed(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in blocks(BOOK / "faq.md", "python"):
        exec(compile(code, "faq.md", "exec"), names)
    said = capsys.readouterr().out
    assert "found ['a', 'dog', 'cat']" in said
    assert "False True True\n" in said
    assert "['weight', 'bias']\n" in said
    assert [line.split()[0] for line in said.splitlines()[-6:]] == [
        "bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d",
    ]  # fmt: skip


def test_the_python_of_the_readme_runs_as_printed(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(BOOK / "gallery" / "polar-bear.jpg", "photo.jpg")
    names = {}
    for code in blocks(ROOT / "README.md", "python"):
        exec(compile(code, "README.md", "exec"), names)
    said = capsys.readouterr().out.strip()
    assert said == names["caption"].text
    for page in (
        BOOK / "welcome.md",
        ROOT / "README.md",
    ):  # what their first picture shows
        assert said in page.read_text(encoding="utf-8").lower()


def test_the_example_of_ones_own_data_is_one_we_read(tmp_path):
    (example,) = blocks(BOOK / "command_line.md", "json")
    Image.new("RGB", (40, 30)).save(tmp_path / "cat.jpg")
    (tmp_path / "garden.json").write_text(example)
    (record,) = read_karpathy(tmp_path / "garden.json", tmp_path)
    assert (record.dataset, record.split, len(record.captions)) == (
        "garden",
        "TRAIN",
        2,
    )


# --------------------------------------------------------------------------------------- results


def stored(beam: int, bleu4: float, **search) -> dict:
    scores = dict.fromkeys(results.SCORES, 12.345) | {"bleu4": bleu4}
    intervals = {name: [value - 1, value + 1] for name, value in scores.items()}
    return {
        "data": {"dataset": "flickr8k", "split": "val"},
        "result": {**scores, "images": 1000, "intervals": intervals},
        "search": {"beam_size": beam, **search},
        "model": {
            "backbone": "tf_efficientnet_lite0",
            "grid_size": None,
            "embed_dim": 300,
            "decoder_dim": 512,
            "attention_dim": 512,
        },
        "training": {
            "training": {"seed": 7, "epoch": 2, "bleu4": 18.0, "nats": 2.5}
        },
        "versions": {"torch": "2.9.1"},
    }


def test_the_page_of_results_is_what_the_stored_results_say():
    assert not results.stale(), "run python -m tools.results"


def test_results_are_tabled_by_beam_with_where_they_came_from(tmp_path):
    for name, content in {
        "b5": stored(5, 20.5),
        "a1": stored(1, 18.25),
        "c5n": stored(5, 21.75, length_normalisation=0.7),
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    row = {"train_seconds": 55.0, "evaluate_seconds": 5.0, "nats": 2.5}
    log = [
        {"epoch": 1, "bleu4": 15.0, **row},
        {"epoch": 2, "bleu4": 18.0, **row},
    ]
    log[1] |= {"train_seconds": 55.0}
    first = stored(1, 1.0)
    first["training"]["training"] |= log[1]
    for path in tmp_path.glob("*.json"):
        content = json.loads(path.read_text())
        content["training"] = first["training"]
        path.write_text(json.dumps(content))
    (tmp_path / "run.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in log)
    )
    said = results.render(tmp_path).replace("\u2060", "")
    assert "Flickr8k, validation split, 1,000 images" in said
    beams = re.findall(r"^\| (\d[^|]*) \| 12\.3[45] \|", said, re.MULTILINE)
    assert beams == ["1", "5", "5, length to 0.7"]
    assert "| 21.75 |" in said and "| 20.8–22.8 |" in said
    assert "seed 7" in said and "epoch 2" in said and "torch 2.9.1" in said
    assert "2 epochs with validation took 2 minutes" in said


def test_a_changed_figure_on_the_page_is_noticed(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text(json.dumps(stored(3, 19.5)))
    page = results.replace(f"x\n{results.BEGIN}\n{results.END}\ny\n", "")
    page = results.replace(page, results.render(tmp_path / "results"))
    (tmp_path / "results.md").write_text(page)
    assert not results.stale(tmp_path)
    (tmp_path / "results.md").write_text(page.replace("19.50", "29.50"))
    assert results.stale(tmp_path)


def test_the_test_split_comes_first_with_its_intervals(tmp_path):
    scores = dict.fromkeys(results.SCORES, 12.345)
    bounds = {"intervals": dict.fromkeys(results.SCORES, [11.06, 13.24])}
    content = {
        "model_sha256": "0123456789abcdef",
        "date": "2026-01-02",
        "stored_search": scores | bounds,
        "beam5": scores,
        "beam1": scores | {"bleu4": 9.875},
    }
    (tmp_path / "a.json").write_text(json.dumps(stored(3, 19.5)))
    (tmp_path / "test_split.json").write_text(json.dumps(content))
    said = results.render(tmp_path).replace("\u2060", "")
    assert said.index("test split") < said.index("validation split")
    assert said.count("| 95% interval |" + " 11.1–13.2 |" * 6) == 1
    assert re.search(r"^\| beam 1, greedy \|.* 9\.88 \|", said, re.MULTILINE)
    assert "2026-01-02" in said and "`0123456789ab`" in said


def test_the_test_split_was_scored_with_the_model_that_ships():
    """Another model needs another test: score it, once, when it is final."""
    path = ROOT / "book" / "results" / "test_split.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    weights = (ASSETS / "flickr8k" / "model.safetensors").read_bytes()
    ships = content["model_sha256"] == sha256(weights).hexdigest()
    # Else the page says what was scored.
    assert ships != ("member" in content)
    for name in results.SCORES:
        low, high = content["stored_search"]["intervals"][name]
        assert low < content["stored_search"][name] < high


def audited() -> dict:
    rows = {
        name: {"bleu4": 1.0, "difference": 0.0, "interval": [0, 0]}
        for name in results.CHANGES
    }
    rows["end"] = {"bleu4": 22.5, "difference": 3.456, "interval": [2.5, 4.5]}
    rows["cut"] = {
        "bleu4": 18.5,
        "difference": -0.504,
        "interval": [-1.25, -0.001],
    }
    counts = {
        "images": 1000,
        "references": 5,
        "reference_words": 50_000,
        "unknown_reference_words": 1000,
        "unknown_words_written": 17,
        "captions_with_unknown": 15,
        "unfinished": 0,
        "forced": 5000,
        "forced_past_end": 900,
        "vocabulary": 2500,
        "new_words": 223,
        "new_reference_words": 400,
        "new_words_placed": 123,
    }
    audit = {
        "baseline": {"bleu4": 19.01, "interval": [17.7, 20.2]},
        "changes": rows,
        "repeated_as_images": [18.5, 19.6],
        "counts": counts,
    }
    data = {
        "dataset": "flickr8k",
        "split": "val",
        "counted": ["train", "val"],
        "min_word_freq": 5,
    }
    return stored(1, 19.01) | {"data": data, "audit": audit}


def test_an_audit_is_tabled_in_its_chapter(tmp_path):
    book = tmp_path / "book"
    (book / "results").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    chapter = tmp_path / results.CHAPTER
    empty = f"# before\n#\n{results.PROTOCOL_BEGIN}\n{results.PROTOCOL_END}\n# after\n"
    chapter.write_text(empty)
    page = results.replace(
        f"{results.BEGIN}\n{results.END}", results.render(book / "results")
    )
    (book / "results.md").write_text(page)
    assert not results.stale(book)  # no audit yet, and nothing said
    content = audited()
    del content["result"]
    (book / "results" / "protocol.json").write_text(json.dumps(content))
    assert results.stale(book) == [
        chapter
    ]  # and the page of results goes without it
    script = results.pages(book)[chapter]
    assert script.startswith("# before") and script.endswith("# after\n")
    assert all(line.startswith("#") for line in script.splitlines())
    said = script.replace("\u2060", "")
    assert (
        "BLEU-4 of 19.01" in said
        and "1,000 images of Flickr8k, validation split" in said
    )
    assert "| `<end>` stays, on both sides | +3.46 | +2.50 to +4.50 |" in said
    assert (
        "| cut at the true length | \u22120.50 | \u22121.25 to 0.00 |" in said
    )
    for label in results.CHANGES.values():
        assert said.count(f"| {label} |") == 1
    assert "the interval to 18.5–19.6" in said
    assert "seed 7" in said and "18% of these captions" in said
    chapter.write_text(script)
    assert not results.stale(book)
    chapter.write_text(script.replace("+3.46", "+8.46"))
    assert results.stale(book) == [chapter]


def test_a_page_that_lost_its_markers_is_an_error():
    with pytest.raises(ValueError, match=re.escape("once each")):
        results.replace("no markers", "text")


def test_the_table_of_data_sets_is_what_download_reads():
    page = (ROOT / "book" / "data.md").read_text(encoding="utf-8")
    stored = json.loads((ROOT / data_sets.FILE).read_text(encoding="utf-8"))
    assert data_sets.render(stored).strip() in page
    archives = [
        stored["captions"],
        *(a for d in stored["sets"].values() for a in d["archives"]),
    ]
    assert len(archives) >= 5
    changed = json.loads(json.dumps(stored))
    for archive in archives:
        assert (
            archive["checksum"].split(":")[1][:8] in page
            and archive["file"] in page
        )
    changed["sets"]["coco"]["archives"][0]["bytes"] *= 2
    assert data_sets.render(changed).strip() not in page
