"""The audit of protocols: each rule on captions small enough to check by eye."""

import json
from random import Random

import numpy as np
import pytest
import torch

from captionlib.beam_search import beam_search
from captionlib.config import SearchConfig
from captionlib.data import Vocabulary
from captionlib.io.files import InputError
from captionlib.io.images import read_image
from captionlib.metrics import bleu
from captionlib.model import CaptionModel
from captionlib.toy.scenes import tokenise, write_scenes
from tools import audit

KNOWN = {*"abcdefgh", "<unk>", "<start>", "<end>", "<pad>"}


def corpus(images=30, seed=0):
    """References, free captions and teacher-forced rows of random letters, x and y unknown."""
    rng = Random(seed)

    def caption():
        return rng.choices("aabbccddefghxy", k=rng.randint(4, 9))

    def said(words):  # most of it right
        letters = [
            w if rng.random() < 0.8 else rng.choice("abcdefgh") for w in words
        ]
        return [w if w in KNOWN else "<unk>" for w in letters]

    references = [[caption() for _ in range(3)] for _ in range(images)]
    written = [[*said(captions[0]), "<end>"] for captions in references]
    written[0].pop()  # one that never ended
    forced = [
        [[*said(words), "<end>"] for words in captions]
        for captions in references
    ]
    return references, written, forced


def value(references, hypotheses):
    return bleu(references, hypotheses)["bleu4"]


@pytest.fixture(scope="module")
def measured():
    references, written, forced = corpus()
    return audit.measure(references, written, forced, KNOWN, {"x"})


def moved(measured, name):
    row = measured["changes"][name]
    assert row["difference"] == pytest.approx(
        row["bleu4"] - measured["baseline"]["bleu4"]
    )
    assert (
        row["interval"][0] - 1e-9
        <= row["difference"]
        <= row["interval"][1] + 1e-9
    )
    return row["bleu4"]


def test_none_scores_words_against_words(measured):
    references, written, _ = corpus()
    free = [[w for w in words if w != "<end>"] for words in written]
    assert measured["baseline"]["bleu4"] == pytest.approx(
        value(references, free)
    )


def test_unk_matches_what_the_model_does_not_know(measured):
    references, written, _ = corpus()
    masked = [
        [[w if w in KNOWN else "<unk>" for w in c] for c in five]
        for five in references
    ]
    free = [[w for w in words if w != "<end>"] for words in written]
    assert moved(measured, "unk") == pytest.approx(value(masked, free))
    assert measured["changes"]["unk"]["difference"] > 0


def test_end_stays_where_it_was_reached(measured):
    references, written, _ = corpus()
    ended = [[[*c, "<end>"] for c in five] for five in references]
    assert moved(measured, "end") == pytest.approx(value(ended, written))


def test_cut_at_the_length_of_each_reference(measured):
    references, written, _ = corpus()
    rows = [
        (five, [w for w in words if w != "<end>"][: len(reference)])
        for five, words in zip(references, written, strict=True)
        for reference in five
    ]
    assert moved(measured, "cut") == pytest.approx(
        value(*map(list, zip(*rows, strict=True)))
    )


def test_teacher_forcing_alone_ends_at_the_first_end(measured):
    references, _, forced = corpus()
    rows = [
        (five, words[: words.index("<end>")])
        for five, told in zip(references, forced, strict=True)
        for words in told
    ]
    expected = value(*map(list, zip(*rows, strict=True)))
    assert moved(measured, "teacher_forcing") == pytest.approx(expected)


def test_all_together_are_the_protocol_of_the_original(measured):
    references, _, forced = corpus()
    known = [
        [[w if w in KNOWN else "<unk>" for w in c] + ["<end>"] for c in three]
        for three in references
    ]
    rows = [
        (three, words)
        for three, told in zip(known, forced, strict=True)
        for words in told
    ]
    expected = value(*map(list, zip(*rows, strict=True)))
    assert moved(measured, "all") == pytest.approx(expected)


def test_copies_of_an_image_move_nothing_but_an_interval_that_takes_them_for_images(
    measured,
):
    assert moved(measured, "repeated") == pytest.approx(
        measured["baseline"]["bleu4"]
    )
    right = np.diff(measured["baseline"]["interval"])[0]
    naive = np.diff(measured["repeated_as_images"])[0]
    assert naive == pytest.approx(right / np.sqrt(3), rel=0.25)


def test_the_oracle_places_new_words_where_they_gain_and_no_others():
    references = [[[*"abxde"]], [[*"abcd"]], [["y", *"abcd"]]]
    hypotheses = [["a", "b", "<unk>", "d", "e"], [*"abcd"], ["<unk>", *"abcd"]]
    found = audit.with_oracle(references, hypotheses, {"x"})
    assert found == [[*"abxde"], [*"abcd"], ["<unk>", *"abcd"]]
    assert audit.with_oracle(references, hypotheses, set()) == hypotheses
    assert audit.with_oracle(references, [[], [], []], {"x"}) == [[], [], []]


@pytest.mark.parametrize("seed", range(3))
def test_the_oracle_never_loses(seed):
    references, written, _ = corpus(seed=seed)
    before = value(references, written)
    found = audit.with_oracle(references, written, {"x", "y"})
    assert value(references, found) >= before
    assert [len(words) for words in found] == [len(words) for words in written]


def test_counts(measured):
    references, written, forced = corpus()
    flat = [w for five in references for words in five for w in words]
    counts = measured["counts"]
    assert counts["images"] == 30 and counts["references"] == 3
    assert counts["reference_words"] == len(flat)
    assert counts["unknown_reference_words"] == flat.count("x") + flat.count(
        "y"
    )
    assert counts["new_reference_words"] == flat.count("x")
    assert counts["unknown_words_written"] == sum(
        words.count("<unk>") for words in written
    )
    assert counts["unfinished"] == 1
    told = [words for rows in forced for words in rows]
    assert counts["forced"] == len(told)
    early = ["<end>" in words[: len(words) - 1] for words in told]
    assert counts["forced_past_end"] == sum(early)
    assert 0 < counts["new_words_placed"] <= counts["reference_words"]
    assert json.dumps(measured, allow_nan=False)  # as it is stored


def test_a_count_over_all_splits_lets_words_in():
    captions = {
        "TRAIN": [["a", "a", "b"]],
        "VAL": [["b", "c", "c"]],
        "TEST": [["c", "d"]],
    }
    vocabulary = Vocabulary.build(captions["TRAIN"], 2)
    assert audit.counted_everywhere(captions, vocabulary, 2) == {"b", "c"}
    with pytest.raises(InputError, match="vocabulary has 5 entries"):
        audit.counted_everywhere(captions, vocabulary, 1)


def test_references_are_cut_to_equal_numbers():
    assert audit.same_number([(("a",), ("b",)), (("c",),)]) == [
        [["a"]],
        [["c"]],
    ]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return write_scenes(folder, train=0, val=5, test=0, progress=False)


def test_one_pass_writes_what_beam_search_does_and_repeats_what_the_decoder_scores(
    scenes,
):
    images = json.loads(scenes.read_text())["images"]
    paths = [scenes.parent / "images" / image["filename"] for image in images]
    references = [
        [tokenise(s["raw"]) for s in image["sentences"]] for image in images
    ]
    model = CaptionModel.load("toy")
    words = model.vocabulary
    written, forced = audit.write_and_repeat(
        model, paths, references, batch_size=2
    )
    assert len(written) == len(forced) == 5
    pixels = torch.from_numpy(np.stack([read_image(path) for path in paths]))
    with torch.inference_mode():
        encoder_out = model.eval().encode(pixels)
        found = beam_search(
            model.decoder, encoder_out, words, SearchConfig(beam_size=1)
        )
        for i, best in enumerate(found):
            assert [w for w in written[i] if w != "<end>"] == words.decode(
                best.word_ids
            )
            assert ("<end>" in written[i]) == best.finished
        # One reference alone, step by step: what is likeliest after its true words?
        state, told = model.decoder.begin(encoder_out[3:4]), []
        for word in ["<start>", *references[3][1]]:
            id = torch.tensor([words.word_map.get(word, words.unk)])
            logits, _, state = model.decoder.step(id, state)
            told.append(words.words[int(logits.argmax())])
    assert forced[3][1] == told


def test_bad_input_is_one_line(scenes, tmp_path, capsys):
    words = [
        "--model",
        "toy",
        "--karpathy-json",
        str(scenes),
        "--to",
        str(tmp_path / "h.json"),
    ]
    assert audit.main([*words, "--images", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert audit.main([*words, "--images", str(scenes.parent / "images")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--min-word-freq" in said
    assert not (tmp_path / "h.json").exists()
