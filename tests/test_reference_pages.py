"""The pages to look things up in: what they quote is in the package, what they list is there."""

import re
from importlib import import_module
from inspect import getsource
from pathlib import Path

import pytest

from tools.check import TARGET, glossary, link_problem, prose

BOOK = Path(__file__).parent.parent / "book"
QUOTED = re.compile(
    r"^```\{code-block\} (?:python|js|c)\n:caption: (\S+)\n(.*?)^```",
    re.M | re.S,
)
NAME = re.compile(r"`(captionlib(?:\.\w+)+)`")


def page(name: str) -> str:
    return (BOOK / f"{name}.md").read_text(encoding="utf-8")


def find(name: str):
    """The object of a dotted name, `captionlib.MODULE.OBJECT...`."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        module, _, last = name.rpartition(".")
        return getattr(find(module), last)


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


# ------------------------------------------------------------------- from the paper to the code


def quotes(name: str) -> list[tuple[str, str]]:
    return QUOTED.findall(page(name))


@pytest.mark.parametrize(
    ("name", "code"), quotes("paper") + quotes("without_pytorch")
)
def test_the_quoted_lines_are_in_the_package(name, code):
    """One after the other, as quoted, in the object or file that is named above them."""
    path = BOOK.parent / name
    text = path.read_text() if "/" in name else getsource(find(name))
    source, wanted = lines(text), lines(code)
    starts = range(len(source) - len(wanted) + 1)
    assert any(source[i : i + len(wanted)] == wanted for i in starts), (
        f"{name} reads otherwise"
    )


def test_every_equation_of_the_paper_has_its_place():
    said = page("paper")
    assert len(quotes("paper")) == said.count("{code-block}") >= 15
    found = set()
    for first, last in re.findall(
        r"^### Equations? (\d+)(?: to (\d+))?", said, re.MULTILINE
    ):
        found |= set(range(int(first), int(last or first) + 1))
    assert found == set(range(1, 15))
    parts = re.split(r"^### ", said, flags=re.MULTILINE)[1:]
    assert all("**Departure" in part or "left open" in part for part in parts)


# ------------------------------------------------------------------ the captioner without PyTorch


def test_the_engine_is_as_short_as_the_page_says():
    said = page("without_pytorch")
    assert len(quotes("without_pytorch")) == said.count("{code-block}") >= 8
    files = re.findall(r"^\| `(\w+\.\w+)` \| (\d+) \|", said, re.MULTILINE)
    for name, count in files:
        path = BOOK.parent / "captionlib" / "page" / name
        found = len(path.read_text(encoding="utf-8").splitlines())
        assert found == pytest.approx(int(count), rel=0.05), name
    assert len(files) == 6


# --------------------------------------------------------------------- names, letters and words


@pytest.mark.parametrize(
    "path", sorted(BOOK.glob("*.md")), ids=lambda path: path.stem
)
def test_names_of_the_package_on_the_pages_exist(path):
    for name in NAME.findall(path.read_text(encoding="utf-8")):
        assert find(name) is not None


def test_the_words_of_the_style_guide_are_explained():
    wanted = {
        "alpha",
        "alpha_c",
        "annotation vectors",
        "beta",
        "caption length",
        "context",
    }
    wanted |= {
        "free-running",
        "hidden state",
        "hypotheses",
        "log-probability",
        "logits",
        "nats",
    }
    wanted |= {
        "packed sequence",
        "references",
        "teacher forcing",
        "vocabulary",
        "word map",
    }
    wanted |= {
        "attention",
        "beam search",
        "decoder",
        "encoder",
        "fine-tuning",
        "special tokens",
    }
    assert wanted <= glossary(BOOK.parent)


def test_the_axes_of_the_notation_are_those_of_the_shape_comments():
    from tools.shapes import PACKAGE, comments

    rows = re.findall(
        r"^\| ([A-Za-z](?:, [A-Z])?) \|", page("notation"), re.MULTILINE
    )
    known = {letter for row in rows for letter in row.split(", ")}
    assert {"B", "T", "P", "D", "H", "A", "E", "V", "K", "N"} <= known
    dims = {
        dim
        for path in (BOOK.parent / PACKAGE).glob("*.py")
        for comment in comments(path)
        for dim in comment.dims
    }
    used = set(re.findall(r"\b[A-Zk]\b", " ".join(dims).replace("*", " ")))
    assert used <= known, used - known


# ------------------------------------------------------------------- what the original tutorial had

# Its headings, and below them what has a name of its own.
ORIGINAL = """
Objective | Concepts | Image captioning | Encoder-Decoder architecture | Attention |
Transfer Learning | Beam Search | Overview | Encoder | Decoder | Putting it all together |
Implementation | Dataset | Inputs to model | Images | Captions | Caption Lengths | Data pipeline |
create_input_files | CaptionDataset | Training | from scratch | resume | Loss Function |
doubly stochastic | pack_padded_sequence | Early stopping with BLEU | Remarks | stages |
Teacher Forcing during validation | BLEU-4 at beam sizes | learning rate | Time an epoch |
Model Checkpoint | Inference | caption_image_beam_search | visualize_att | caption.py | eval.py |
Some more examples | hard | sequence to sequence | Beam Search during training |
What is Teacher Forcing | pretrained word embeddings | gradients | all BLEU
"""


def rows() -> list[list[str]]:
    table = [
        line for line in page("original").splitlines() if line.startswith("| ")
    ]
    return [
        [cell.strip() for cell in row.strip("|").split("|")] for row in table
    ]


def test_everything_of_the_original_is_in_the_table():
    entries = [row[0].lower() for row in rows()]
    wanted = [" ".join(entry.split()).lower() for entry in ORIGINAL.split("|")]
    assert len(wanted) == 47
    for entry in wanted:
        assert any(entry in said for said in entries), entry


def test_every_row_leads_to_a_place_that_is_there():
    counted, labels = 0, set()
    for path in [*BOOK.glob("*.md"), *BOOK.parent.glob("notebooks/*.ipynb")]:
        labels |= set(TARGET.findall(prose(path)))
    for row in rows():
        if row[0] in ("in the original", "---"):
            continue
        links = re.findall(r"\]\(([^)\s]+)\)", row[-1])
        assert links, row
        for link in links:
            assert "#" in link, f"{link}: name the heading"
            assert link_problem(BOOK / "original.md", link, labels) is None, (
                link
            )
            counted += 1
    assert counted > 50
