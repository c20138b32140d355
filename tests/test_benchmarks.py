"""Every benchmark runs, at small sizes, and the book shows what was stored."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import (
    Row,
    cold_start,
    decoder,
    epoch,
    memory,
    photo,
    preparation,
    scoring,
    search,
)
from tools import bench, results

ROWS = [
    Row("a step & its products", 5.13, "×", 5),
    Row("memory", 1.204, "×", 1.1, at_least=False),
    Row("stated alone", 62.5, "%"),
]


TIMED = (preparation, decoder, epoch, search, scoring, photo, cold_start)


@pytest.fixture
def quick(monkeypatch):
    """One round, and a tenth of everything or less."""
    once = {module: module.median_seconds for module in TIMED}
    for module, measure in once.items():
        monkeypatch.setattr(
            module, "median_seconds", lambda f, rounds=1, m=measure: m(f, 1)
        )
    for module in (decoder, epoch):
        for name, value in {
            "P": 196,
            "D": 32,
            "A": 8,
            "E": 8,
            "H": 8,
            "V": 50,
        }.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(decoder, "B", 10)
    monkeypatch.setattr(epoch, "BACKBONE", "tf_efficientnet_lite0")
    monkeypatch.setattr(epoch, "NAIVE", 16)
    monkeypatch.setattr(epoch, "BATCH", 2)
    for name, sizes in search.SIZES.items():
        small = sizes._replace(
            encoder_dim=32,
            words=50,
            attention_dim=6,
            embed_dim=4,
            decoder_dim=8,
        )
        monkeypatch.setitem(search.SIZES, name, small)
    monkeypatch.delitem(
        search.TARGETS, "the original's sizes"
    )  # one size shows it
    monkeypatch.setattr(scoring, "IMAGES", 100)
    for name, value in {"IMAGES": 144, "FEW": 16, "MANY": 32}.items():
        monkeypatch.setattr(preparation, name, value)
    for name, value in {"FEW": 8, "MANY": 16, "OTHERS": 4}.items():
        monkeypatch.setattr(memory, name, value)


@pytest.mark.long
@pytest.mark.parametrize("benchmark", [*TIMED, memory])
def test_a_benchmark_runs_and_says_what_it_found(benchmark, quick, capsys):
    rows = benchmark.main()
    assert all(row.value > 0 for row in rows) and any(
        row.target for row in rows
    )
    assert capsys.readouterr().out.count("\n") >= 2


def test_a_row_knows_whether_its_target_is_met():
    assert [row.met for row in ROWS] == [True, False, None]
    assert ROWS[0]._replace(value=5).met and ROWS[1]._replace(value=1.1).met


@pytest.fixture
def book(tmp_path):
    """A book with a stored benchmark, its page and figure written."""
    (tmp_path / "results").mkdir()
    (tmp_path / "figures").mkdir()
    stored = {
        "date": "2026-01-02",
        "machine": "A Processor",
        "cores": 2,
        "threads": 2,
        "versions": {"torch": "2.0"},
        "seconds": 300,
        "rows": [row._asdict() | {"met": row.met} for row in ROWS],
    }
    (tmp_path / "results" / "bench.json").write_text(json.dumps(stored))
    markers = (results.BEGIN, results.END, bench.BEGIN, bench.END)
    (tmp_path / "results.md").write_text("\n".join(markers) + "\n")
    for path, text in results.pages(tmp_path).items():
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_what_was_stored_is_tabled_with_its_misses_and_where_it_came_from(book):
    page = (book / "results.md").read_text(encoding="utf-8")
    assert "| a step & its products | 5.1 × | at least 5 × |" in page
    assert "| memory | **1.20 ×** | at most 1.1 × |" in page
    assert "| stated alone | 62% | – |" in page
    assert (
        "A Processor, 2 cores, 2 threads, on 2026-01-02" in page
        and "torch 2.0" in page
    )
    assert re.search(r":alt: .*1 of 2 do.*memory 1\.20 ×", page)


def test_the_figure_has_a_bar_for_each_row_and_one_line_that_is_the_target(
    book,
):
    root = ElementTree.fromstring(
        (book / "figures" / "bench.svg").read_text(encoding="utf-8")
    )
    kind = "{http://www.w3.org/2000/svg}"
    page, *bars = root.findall(f"{kind}rect")
    target = float(root.find(f"{kind}line").get("x1"))
    ends = [float(bar.get("x")) + float(bar.get("width")) for bar in bars]
    assert (
        len(bars) == 2
        and ends[0] > target > ends[1]
        and "#ffffff" in page.get("fill")
    )
    said = [text.text for text in root.findall(f"{kind}text")]
    assert {
        "a step & its products",
        "5.1 ×, at least 5 ×",
        "1.20 ×, at most 1.1 ×",
    } <= set(said)


def test_a_page_behind_its_benchmark_is_stale(book):
    assert not results.stale(book)
    (book / "figures" / "bench.svg").unlink()
    assert results.stale(book) == [book / "figures" / "bench.svg"]
    (book / "results" / "bench.json").unlink()
    assert results.stale(book) == [
        book / "results.md"
    ]  # the table goes with its ground
