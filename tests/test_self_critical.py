"""Rewarding whole captions: the estimate is exact on average, chapter and engine agree, and the
command trains by it."""

import contextlib
import dataclasses
import io
import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import Dataset

from captionlib import cli
from captionlib.beam_search import beam_search
from captionlib.config import EngineConfig, ModelConfig, SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention
from captionlib.engine import self_critical as engine
from captionlib.engine.batches import make_loader
from captionlib.engine.loop import train
from captionlib.engine.objectives import teacher_forcing
from captionlib.metrics import cider_d_scores
from captionlib.model import CaptionModel
from captionlib.scoring.cider import CiderD
from captionlib.self_critical import (
    SelfCritical,
    caption_log_probs,
    leave_one_out,
    rewards,
    sample,
    self_critical_loss,
    sentences,
    word_entropy,
)
from captionlib.training import make_optimizer
from tools.experiments import __main__ as experiments

# ----------------------------------------------------- by enumeration, three words and all captions

LONGEST = 3


@pytest.fixture(scope="module")
def little():
    """A decoder that can say a, b and <end>, a grid, and all 15 captions of up to three draws."""
    torch.manual_seed(0)
    v = Vocabulary.build([["a", "b"]], min_word_freq=1)
    decoder = DecoderWithAttention(3, 4, 5, len(v), encoder_dim=6).double()
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.normal_()
    grids = torch.randn(1, 4, 6, dtype=torch.float64)
    a, b = v.word_map["a"], v.word_map["b"]
    every = [
        [*words, last]
        for n in range(LONGEST)
        for words in itertools.product((a, b), repeat=n)
        for last in ((v.end,) if n < LONGEST - 1 else (v.end, a, b))
    ]
    assert len(every) == 1 + 2 + 4 * 3
    return decoder.eval(), grids, v, every


def probability(decoder, grids, v, ids):
    """A caption's, by `step` alone: one softmax over a, b and <end> after another."""
    state, p, word = decoder.begin(grids), 1.0, v.start
    can = [v.word_map["a"], v.word_map["b"], v.end]
    for after in ids:
        logits, _, state = decoder.step(torch.tensor([word]), state)
        p = p * logits[0, can].softmax(dim=0)[can.index(after)]
        word = after
    return p


def read(decoder, grids, v, captions):
    """`caption_log_probs` of captions, lists of ids."""
    lengths = torch.tensor([len(ids) + 1 for ids in captions])
    padded = [
        [v.start, *ids] + [v.pad] * (LONGEST - len(ids)) for ids in captions
    ]
    output = decoder(grids, torch.tensor(padded), lengths)
    return caption_log_probs(output, v), output


def gradient_of(value, decoder):
    decoder.zero_grad()
    value.backward()
    return torch.cat([w.grad.flatten() for w in decoder.parameters()])


def test_all_captions_are_all_there_is(little):
    decoder, grids, v, every = little
    with torch.no_grad():
        ps = [probability(decoder, grids, v, ids) for ids in every]
    ps = torch.stack(ps)
    assert float(ps.sum()) == pytest.approx(1)
    log_probs, _ = read(decoder, grids, v, every)
    assert_close(log_probs.double(), ps.log(), atol=1e-5, rtol=1e-4)


def gains_of(pairs, baseline, best):
    """Gains (N, 2) of two captions of one image, by their rewards."""
    return {
        "others": leave_one_out(pairs),
        "greedy": pairs - best,
        "none": pairs,
    }[baseline]


@pytest.mark.parametrize("baseline", ["others", "greedy", "none"])
def test_on_average_the_estimate_is_the_exact_gradient(little, baseline):
    """All pairs of captions that one image can get, each as often as it is drawn."""
    decoder, grids, v, every = little
    rewarded = torch.rand(
        len(every), generator=torch.Generator().manual_seed(1)
    ).double()
    ps = torch.stack([probability(decoder, grids, v, ids) for ids in every])
    exact = gradient_of(-(ps * rewarded).sum(), decoder)
    ids, length = sample(decoder, grids, v, 1, LONGEST, greedy=True)
    best = rewarded[every.index(ids[0, 1:length].tolist())]

    log_probs, _ = read(decoder, grids, v, every)
    chances, expected = ps.detach(), 0.0
    for pair in itertools.product(range(len(every)), repeat=2):
        pair = list(pair)
        gains = gains_of(rewarded[pair][None], baseline, best).flatten()
        loss = self_critical_loss(log_probs[pair], gains)
        expected = expected + chances[pair].prod() * loss
    found = gradient_of(expected, decoder)
    assert exact.norm() > 0.01
    assert_close(found, exact, atol=1e-5, rtol=1e-3)


def test_other_captions_as_baseline_lessen_the_variance(little):
    decoder, grids, v, every = little
    rewarded = torch.linspace(5, 6, len(every))
    ps = [float(probability(decoder, grids, v, c).detach()) for c in every]
    log_probs = [read(decoder, grids, v, [c])[0].sum() for c in every]
    slopes = torch.stack([gradient_of(each, decoder) for each in log_probs])
    squares = {"others": 0.0, "none": 0.0}
    for pair in itertools.product(range(len(every)), repeat=2):
        pair = list(pair)
        for name in squares:
            gains = gains_of(rewarded[pair][None], name, 0)[0].to(slopes)
            estimate = (gains[:, None] * slopes[pair]).mean(dim=0)
            chance = ps[pair[0]] * ps[pair[1]]
            squares[name] += chance * float(estimate.norm() ** 2)
    assert squares["others"] < squares["none"] / 20


def test_captions_are_drawn_as_often_as_they_are_likely(little):
    decoder, grids, v, every = little
    torch.manual_seed(2)
    draws = 20_000
    captions, lengths = sample(decoder, grids, v, draws, LONGEST)
    rows = zip(captions.tolist(), lengths.tolist(), strict=True)
    drawn = [every.index(ids[1:n]) for ids, n in rows]
    counts = np.bincount(drawn, minlength=len(every))
    for ids, count in zip(every, counts, strict=True):
        p = float(probability(decoder, grids, v, ids).detach())
        spread = math.sqrt(draws * p * (1 - p)) + 1
        assert abs(count - draws * p) < 4.5 * spread


def test_entropy_is_that_of_three_words(little):
    decoder, grids, v, every = little
    _, output = read(decoder, grids, v, every[-1:])
    can = [v.word_map["a"], v.word_map["b"], v.end]
    p = output.logits.data[:, can].softmax(dim=1)
    assert_close(
        word_entropy(output, v).double(),
        -(p * p.log()).sum(dim=1),
        atol=1e-5,
        rtol=1e-4,
    )
    assert float(word_entropy(output, v).detach().max()) <= math.log(3)


def test_leave_one_out_is_the_excess_over_the_others():
    scores = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    expected = [
        [row[i] - np.delete(row, i).mean() for i in range(5)]
        for row in scores.numpy()
    ]
    assert_close(leave_one_out(scores), torch.tensor(expected))
    assert_close(leave_one_out(scores).sum(dim=1), torch.zeros(3))


# -------------------------------------------------------------------------- a corpus of four images

WORDS = "a dog cat runs sits on the red mat".split()
SENTENCES = [
    ["a dog runs", "the dog runs", "a red dog runs"],
    ["a cat sits on the mat", "the cat sits", "a cat on a mat"],
    ["the red mat", "a red mat", "a mat"],
    ["a dog sits on the mat", "the dog sits", "a dog on a mat"],
]
SETTINGS = EngineConfig(
    epochs=2, batch_size=4, learning_rate=1e-2, schedule="one_cycle"
)


class Corpus(Dataset):
    """Four images' features with three captions each."""

    def __init__(self):
        self.vocabulary = Vocabulary.build([WORDS], min_word_freq=1)
        self.features = torch.randn(
            4, 5, 1280, generator=torch.Generator().manual_seed(0)
        )
        encoded = [
            [self.vocabulary.encode(text.split(), 6) for text in texts]
            for texts in SENTENCES
        ]
        self.captions = torch.tensor(encoded)
        self.lengths = torch.tensor(
            [[len(t.split()) + 2 for t in texts] for texts in SENTENCES]
        )
        self.told = [[text.split() for text in texts] for texts in SENTENCES]

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.features[i], self.captions[i], self.lengths[i]

    def objective(self, kind=SelfCritical, **options):
        parts = self.captions, self.lengths, self.vocabulary
        return kind(*parts, **options)


@pytest.fixture
def corpus():
    return Corpus()


def make(corpus, dropout=0.0):
    torch.manual_seed(0)
    config = ModelConfig(
        attention_dim=8, embed_dim=8, decoder_dim=16, dropout=dropout
    )
    return CaptionModel(config, corpus.vocabulary)


def batch(corpus, *numbers):
    items = [corpus[i] for i in numbers]
    return [torch.stack(part) for part in zip(*items, strict=True)]


def flat(corpus, *numbers):
    features, captions, lengths = batch(corpus, *numbers)
    return features, captions.flatten(0, 1), lengths.flatten()


def gradients(loss, model):
    model.zero_grad()
    loss.backward()
    return [w.grad for w in model.decoder.parameters() if w.grad is not None]


def test_rewards_are_cider_d_with_end_as_a_word(corpus):
    texts = ["a dog runs", "a mat", "the cat", "a dog", "mat", "a"]
    told = [[[*c, "<end>"] for c in of_image] for of_image in corpus.told]
    written = [[*text.split(), "<end>"] for text in texts]
    found = rewards(CiderD(told), [told[3], told[1]], written)
    for k, words in enumerate(written):
        image = (3, 1)[k // 3]
        hypotheses = [["x"]] * 4
        hypotheses[image] = words
        expected = cider_d_scores(told, hypotheses)[image]
        assert float(found[k // 3, k % 3]) == pytest.approx(expected)


def test_stopping_too_early_costs_only_where_end_counts(corpus):
    """Why `<end>` counts: cut off in the middle, a caption loses no n-gram that others have."""
    told = [[[*c, "<end>"] for c in of_image] for of_image in corpus.told]
    whole, cut = (
        ["a", "dog", "on", "a", "mat", "<end>"],
        ["a", "dog", "on", "a", "<end>"],
    )
    without = [[c[:-1] for c in of_image] for of_image in told]
    ends, none = CiderD(told), CiderD(without)
    with_end = rewards(ends, [told[3]], [whole, cut])[0]
    ended = rewards(none, [without[3]], [whole[:-1], cut[:-1]])[0]
    assert with_end[1] / with_end[0] < ended[1] / ended[0]


def test_samples_hold_only_words_and_end_once(corpus):
    v, model = corpus.vocabulary, make(corpus).eval()
    captions, lengths = sample(model.decoder, corpus.features, v, 50, 4)
    assert captions.shape == (200, 5) and lengths.max() == 5
    for ids, n in zip(captions.tolist(), lengths.tolist(), strict=True):
        assert ids[0] == v.start and set(ids[n:]) <= {v.pad}
        assert not {v.unk, v.pad, v.start} & set(ids[1:n])
        assert v.end not in ids[: n - 1]
    words = sentences(captions, lengths, v)
    assert [len(c) for c in words] == (lengths - 1).tolist()
    assert "<end>" not in sum(sentences(captions, lengths, v, end=False), [])


def test_greedy_samples_are_what_beam_search_of_one_finds(corpus):
    v, model = corpus.vocabulary, make(corpus).eval()
    search = SearchConfig(1, max_words=6, forbid_unk=True)
    found = beam_search(model.decoder, corpus.features, v, search)
    rows = sample(model.decoder, corpus.features, v, 1, 6, greedy=True)
    written = sentences(*rows, v, end=False)
    assert written == [v.decode(best.word_ids) for best in found]


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("end", [False, True])
def test_the_loss_is_made_of_its_parts(corpus, greedy, end):
    v, model = corpus.vocabulary, make(corpus, dropout=0.5)
    told = [[[*c, "<end>"] if end else c for c in t] for t in corpus.told]
    objective = corpus.objective(samples=4, greedy=greedy, end=end)
    torch.manual_seed(5)
    found = objective(model, batch(corpus, 2, 0))
    model.eval()
    grids = corpus.features[[2, 0]]
    torch.manual_seed(5)
    captions, lengths = sample(model.decoder, grids, v, 4, 7)
    chosen = [told[2], told[0]]
    written = sentences(captions, lengths, v, end)
    scores = rewards(CiderD(told), chosen, written)
    gains = leave_one_out(scores)
    if greedy:
        rows = sample(model.decoder, grids, v, 1, 7, greedy=True)
        gains = scores - rewards(CiderD(told), chosen, sentences(*rows, v, end))
    log_probs = caption_log_probs(model.decoder(grids, captions, lengths), v)
    total = -(gains.flatten().float() / 100 * log_probs).mean()
    assert_close(found.total, total)
    assert_close(found.reward, scores.mean())


def test_it_learns_to_score(corpus):
    model = make(corpus)
    objective, scores = corpus.objective(samples=8), []
    optimizer = make_optimizer(model, SETTINGS)
    for _ in range(40):
        loss = objective(model, batch(corpus, 0, 1, 2, 3))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        scores.append(float(loss.reward))
    assert np.mean(scores[-5:]) > 1.3 * np.mean(scores[:5])


# --------------------------------------------------------------------------------------- the engine


def test_the_engines_loss_is_the_chapters(corpus):
    model = make(corpus, dropout=0.5)
    config = dataclasses.replace(SETTINGS, reward_samples=4)
    plain = corpus.objective(samples=4)
    torch.manual_seed(3)
    expected = plain(model, batch(corpus, 1, 3))
    wanted = gradients(expected.total, model)
    torch.manual_seed(3)
    objective = corpus.objective(engine.SelfCritical)
    found, words = objective(model, *flat(corpus, 1, 3), config)
    assert words > 8
    assert_close(found.total, expected.total)
    assert_close(found.reward.double(), expected.reward)
    for one, other in zip(gradients(found.total, model), wanted, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_of_cross_entropy_is_mixed_in(corpus, share):
    model, objective = make(corpus), corpus.objective(engine.SelfCritical)
    images, captions, lengths = flat(corpus, 0, 2)
    both = dataclasses.replace(SETTINGS, cross_entropy_share=share)
    torch.manual_seed(4)
    alone = objective(model, images, captions, lengths, SETTINGS)[0].total
    torch.manual_seed(4)
    mixed = objective(model, images, captions, lengths, both)[0].total
    forced, words = teacher_forcing(model, images, captions, lengths, both)
    scale = words / len(captions)  # nats a caption
    expected = (1 - share) * alone + share * scale * forced.total
    assert_close(mixed, expected)


def test_training_takes_it_for_its_objective(corpus, tmp_path):
    history = train(
        make(corpus),
        make_loader(corpus, SETTINGS),
        lambda model: {"bleu4": 0.0},
        SETTINGS,
        tmp_path,
        objective=corpus.objective(engine.SelfCritical),
        progress=False,
    )
    assert len(history) == 2
    for row in history:
        assert row.keys() >= {"loss", "nats", "reward"} and "penalty" not in row


# -------------------------------------------------------------------------------------- the command

TINY = {
    "scenes": {"train": 8, "val": 3, "test": 0, "seed": 1},
    "data": {"dataset": "scenes", "min_word_freq": 1, "max_len": 20},
    "model": {
        "image_size": 64,
        "attention_dim": 8,
        "embed_dim": 8,
        "decoder_dim": 8,
    },
    "stages": [
        {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2},
        {
            "objective": "self_critical",
            "reward_samples": 3,
            "cross_entropy_share": 0.1,
            "epochs": 2,
            "batch_size": 4,
        },
    ],
    "search": {"max_words": 8},
}


def call(*words) -> tuple[int, str, str]:
    """The command in this process: status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([str(word) for word in words])
    return status, out.getvalue(), err.getvalue()


def refused(*words) -> str:
    """The one line that the command ends with."""
    status, out, err = call(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    return err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What a recipe of two stages leaves, the second of them self-critical."""
    folder = tmp_path_factory.mktemp("self_critical")
    (folder / "tiny.json").write_text(json.dumps(TINY))
    words = ("--recipe", folder / "tiny.json", "--to", folder / "model")
    status, _, err = call("train", *words)
    assert (status, err) == (0, "")
    return folder


def log(folder: Path) -> list:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_recipe_has_a_self_critical_stage(made):
    first, second = log(made / "model" / "stage1"), log(made / "model")
    assert all("penalty" in row for row in first)
    assert all("reward" in row and "penalty" not in row for row in second)


def test_the_command_rewards_captions_and_resumes_to_the_bit(made, tmp_path):
    model, data = made / "model" / "stage1", made / "model" / "data"
    start = ("train", "--objective", "self_critical", "--data", data)
    start += ("--start-from", model, "--batch-size", 4, "--epochs", 2)
    start += ("--reward-samples", 2)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    status, out, err = call(*start, "--to", whole)
    assert (status, err) == (0, "") and "before training" in out
    assert [row["reward"] >= 0 for row in log(whole)] == [True, True]

    shutil.copytree(whole, halves)
    shutil.rmtree(halves / "last")
    shutil.rmtree(halves / "best")
    assert call(*start, "--epochs", 1, "--to", halves)[0] == 0
    more = ("train", "--to", halves, "--data", data, "--resume", "--epochs", 2)
    assert call(*more)[0] == 0
    ends = [f / "last" / "model.safetensors" for f in (whole, halves)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert "objective" in refused(*more, "--objective", "cross_entropy")


def test_without_a_captioner_to_start_from_it_is_refused(made, tmp_path):
    words = ("--data", made / "model" / "data", "--to", tmp_path / "new")
    line = refused("train", "--objective", "self_critical", *words)
    assert line.startswith("captionlib: --objective self_critical: ")
    assert "--start-from DIR" in line
    both = ("--recipe", made / "tiny.json", "--to", tmp_path / "new")
    assert "--start-from" in refused(
        "train", "--objective", "self_critical", *both
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--objective praise", "cross_entropy, self_critical"),
        ("--reward-samples 1", "at least 2"),
        ("--cross-entropy-share 1.5", "at most 1"),
        ("--objective self_critical --own-words 0.2", "own_words must be 0"),
    ],
)
def test_what_makes_no_sense_is_refused(made, tmp_path, options, said):
    words = ("--data", made / "model" / "data", "--to", tmp_path / "new")
    assert said in refused("train", *options.split(), *words)


# ----------------------------------------------------------------------------------- the experiment


@pytest.mark.long
def test_the_experiment_runs_and_shares_its_start(tmp_path):
    command = ["self_critical", "--quick", "--work", str(tmp_path / "work")]
    command += ["--store", str(tmp_path / "stored.json")]
    assert experiments.main(command) == 0
    stored = json.loads((tmp_path / "stored.json").read_text(encoding="utf-8"))
    for name, runs in stored["runs"].items():
        assert [run["seed"] for run in runs] == [1, 2], name
        assert all(
            (run["seconds"] > 0) == (name != "the start") for run in runs
        )
    starts = sorted(path.name for path in (tmp_path / "work").glob("start*"))
    assert starts == ["start-1", "start-2"]
