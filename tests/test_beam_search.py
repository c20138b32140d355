import itertools
import math

import pytest
import torch

from captionlib.beam_search import SearchConfig, beam_search, best_candidates
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention

P, D = 6, 8


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_vocabulary(words):
    return Vocabulary.build([[f"w{i}" for i in range(words)]], min_word_freq=1)


def make_decoder(vocabulary, seed=0, end=0.0, dtype=torch.float64):
    """A random decoder, but one that knows when to stop.

    Its words depend on the image and on the words before. Its first unit counts them, from a number
    that depends on the image, and makes <end> likelier; `end` is that word's bias.
    """
    torch.manual_seed(seed)
    decoder = DecoderWithAttention(5, 4, 7, len(vocabulary), encoder_dim=D).to(dtype).eval()
    cell, fc = decoder.decode_step, decoder.fc
    with torch.no_grad():
        for layer in (decoder.init_h, decoder.init_c, cell):
            for parameter in layer.parameters():
                parameter.mul_(3)
        decoder.embedding.weight.mul_(20)
        decoder.attention.full_att.weight.mul_(4)
        decoder.init_c.weight[0] /= 2
        decoder.init_c.bias[0] = -1
        for weight in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh):
            weight.view(4, 7, -1)[:, 0] = 0
        # Input, forget and output gate of the first unit are open; every step adds tanh(0.25).
        cell.bias_hh.view(4, 7)[:, 0] = torch.tensor([9, 9, 0.25, 9])
        fc.weight.mul_(20)
        fc.weight[:, 0] = 0
        fc.weight[vocabulary.end, 0] = 10
        fc.bias[vocabulary.end] = end
    return decoder


def make_encodings(images, seed=0, dtype=torch.float64):
    return torch.randn(images, P, D, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def forced(decoder, encoding, words, vocabulary):
    """Teacher-forced log-probabilities of the words and <end>, and alphas, from `forward`."""
    caption = torch.tensor([[vocabulary.start, *words, vocabulary.end]])
    with torch.no_grad():
        out = decoder(encoding.unsqueeze(0), caption, torch.tensor([caption.shape[1]]))
    log_probs = out.logits.data.log_softmax(dim=1)  # one caption: packed order is word order
    return log_probs.gather(1, caption[0, 1:, None])[:, 0], out.alphas[0]


def sequences(vocabulary, longest, shortest=0):
    """Every caption of `shortest` to `longest` words; <unk> is a word like any other."""
    ids = sorted(set(range(len(vocabulary))) - {vocabulary.pad, vocabulary.start, vocabulary.end})
    for length in range(shortest, longest + 1):
        yield from itertools.product(ids, repeat=length)


def greedy(decoder, encoding, vocabulary, max_words):
    """Written apart from the search: the likeliest word, whatever was said before it."""
    words = []
    with torch.no_grad():
        grid = decoder.grid(encoding.unsqueeze(0))
        state, word = decoder.init_state(grid), vocabulary.start
        while True:
            state, _ = decoder.step(torch.tensor([word]), state, grid)
            logits = decoder.word_logits(state.hidden)[0]
            logits[[vocabulary.pad, vocabulary.start]] = -math.inf
            word = int(logits.argmax())
            if word == vocabulary.end:
                return words, True
            if len(words) == max_words:
                return words, False
            words.append(word)


def plain_search(decoder, encoding, vocabulary, config):
    """Beam search without states or early stop: every beginning is read again from its start,
    and nothing ends before `beam_size` captions have finished or `max_words` are written."""
    live, finished = [(0.0, ())], []
    for length in range(config.max_words + 1):
        candidates = []
        for total, words in live:
            caption = torch.tensor([[vocabulary.start, *words, vocabulary.end]])
            with torch.no_grad():
                out = decoder(encoding.unsqueeze(0), caption, torch.tensor([len(words) + 2]))
            for word, value in enumerate(out.logits.data[-1].log_softmax(0).tolist()):
                if word not in (vocabulary.pad, vocabulary.start):
                    candidates.append((total + value, (*words, word)))
        candidates.sort(key=lambda candidate: -candidate[0])
        kept = candidates[: config.beam_size - len(finished)]
        finished += [(total, words) for total, words in kept if words[-1] == vocabulary.end]
        if length < config.max_words:
            live = [(total, words) for total, words in kept if words[-1] != vocabulary.end]
        if not live or len(finished) == config.beam_size:
            break
    if not finished:
        return live[0][1], live[0][0], False
    total, words = max(finished, key=lambda f: f[0] / len(f[1]) ** config.length_normalisation)
    return words[:-1], total, True


@pytest.mark.parametrize("seed", range(6))
def test_a_beam_of_one_is_greedy_search(seed):
    vocabulary = make_vocabulary(9)
    decoder, encodings = make_decoder(vocabulary, seed), make_encodings(8, seed)
    found = beam_search(decoder, encodings, vocabulary, SearchConfig(beam_size=1, max_words=6))
    for encoding, hypothesis in zip(encodings, found, strict=True):
        words, finished = greedy(decoder, encoding, vocabulary, max_words=6)
        assert (hypothesis.word_ids, hypothesis.finished) == (words, finished)
    assert len({tuple(hypothesis.word_ids) for hypothesis in found}) > 1  # images matter


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_is_exhaustive_search(seed, exponent):
    vocabulary = make_vocabulary(2)  # and <unk>: 40 captions of up to three words
    decoder, encodings = make_decoder(vocabulary, seed), make_encodings(3, seed)
    config = SearchConfig(beam_size=200, max_words=3, length_normalisation=exponent)
    found = beam_search(decoder, encodings, vocabulary, config)
    for encoding, hypothesis in zip(encodings, found, strict=True):
        totals = {
            words: float(forced(decoder, encoding, words, vocabulary)[0].sum())
            for words in sequences(vocabulary, longest=3)
        }
        best = max(totals, key=lambda words: totals[words] / (len(words) + 1) ** exponent)
        assert hypothesis.finished and tuple(hypothesis.word_ids) == best
        assert hypothesis.log_prob == pytest.approx(totals[best], abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_is_exhaustive_search_where_nothing_finishes(seed):
    vocabulary = make_vocabulary(2)
    decoder = make_decoder(vocabulary, seed, end=-math.inf)
    encodings = make_encodings(3, seed)
    found = beam_search(decoder, encodings, vocabulary, SearchConfig(beam_size=200, max_words=3))
    for encoding, hypothesis in zip(encodings, found, strict=True):
        totals = {
            words: float(forced(decoder, encoding, words, vocabulary)[0][:-1].sum())
            for words in sequences(vocabulary, longest=3, shortest=3)
        }
        best = max(totals, key=totals.get)
        assert not hypothesis.finished and tuple(hypothesis.word_ids) == best
        assert hypothesis.log_prob == pytest.approx(totals[best], abs=1e-6)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("beam_size", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_stopping_early_and_sharing_a_batch_change_nothing(seed, beam_size, exponent):
    vocabulary = make_vocabulary(3)
    decoder, encodings = make_decoder(vocabulary, seed, end=3.0), make_encodings(6, seed)
    config = SearchConfig(beam_size, max_words=5, length_normalisation=exponent)
    for encoding, hypothesis in zip(
        encodings, beam_search(decoder, encodings, vocabulary, config), strict=True
    ):
        words, total, finished = plain_search(decoder, encoding, vocabulary, config)
        assert (tuple(hypothesis.word_ids), hypothesis.finished) == (tuple(words), finished)
        assert hypothesis.log_prob == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batched_equals_one_at_a_time(dtype):
    vocabulary = make_vocabulary(30)
    decoder = make_decoder(vocabulary, dtype=dtype)
    encodings = make_encodings(12, dtype=dtype)
    batched = beam_search(decoder, encodings, vocabulary)
    assert len({len(hypothesis.word_ids) for hypothesis in batched}) > 1  # they leave at odd times
    for encoding, together in zip(encodings, batched, strict=True):
        (alone,) = beam_search(decoder, encoding.unsqueeze(0), vocabulary)
        assert (alone.word_ids, alone.finished) == (together.word_ids, together.finished)
        assert alone.log_prob == pytest.approx(together.log_prob, abs=1e-4)
        torch.testing.assert_close(alone.alphas, together.alphas)


@pytest.mark.parametrize("end", [0.0, -math.inf])
def test_score_and_alphas_are_the_teacher_forced_ones(end):
    vocabulary = make_vocabulary(12)
    decoder, encodings = make_decoder(vocabulary, end=end), make_encodings(8)
    for encoding, hypothesis in zip(
        encodings,
        beam_search(decoder, encodings, vocabulary, SearchConfig(max_words=7)),
        strict=True,
    ):
        log_probs, alphas = forced(decoder, encoding, hypothesis.word_ids, vocabulary)
        words = len(hypothesis.word_ids)
        counted = log_probs if hypothesis.finished else log_probs[:words]
        assert hypothesis.log_prob == pytest.approx(float(counted.sum()), abs=1e-5)
        assert hypothesis.alphas.shape == (words, P)
        torch.testing.assert_close(hypothesis.alphas.sum(dim=1), torch.ones(words))
        torch.testing.assert_close(hypothesis.alphas, alphas[:words].float())


def test_report_18_64_142_157_191_196_no_beam_finishes():
    """A decoder that never says <end>: a caption comes back, marked, with its alphas."""
    vocabulary = make_vocabulary(10)
    decoder, encodings = make_decoder(vocabulary, end=-math.inf), make_encodings(3)
    for beam_size in (1, 3):
        found = beam_search(decoder, encodings, vocabulary, SearchConfig(beam_size, max_words=4))
        for hypothesis in found:
            assert not hypothesis.finished
            assert len(hypothesis.word_ids) == 4 and hypothesis.alphas.shape == (4, P)
            assert math.isfinite(hypothesis.log_prob)


def test_one_image_finishes_and_its_neighbour_does_not():
    vocabulary = make_vocabulary(10)
    decoder, encodings = make_decoder(vocabulary), make_encodings(16)
    config = SearchConfig(beam_size=1, max_words=3)
    finished = [
        hypothesis.finished for hypothesis in beam_search(decoder, encodings, vocabulary, config)
    ]
    assert True in finished and False in finished


class Spy(torch.nn.Module):
    """A decoder that notes how `step` is called."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder, self.calls = decoder, []

    def grid(self, encoder_out):
        return self.decoder.grid(encoder_out)

    def init_state(self, grid):
        return self.decoder.init_state(grid)

    def word_logits(self, hidden):
        return self.decoder.word_logits(hidden)

    def step(self, words, state, grid):
        assert words.dtype == torch.int64
        assert torch.is_inference_mode_enabled()
        self.calls.append((len(grid.encoder_out), len(words)))
        return self.decoder.step(words, state, grid)


def test_report_138_155_169_175_188_integer_indices():
    """A position beyond 2**24 has no float32 of its own; as an integer it keeps its word."""
    scores = torch.full((1, 2**24 + 6), -math.inf)
    scores[0, 2**24 + 1], scores[0, 2**24 + 3] = -1.0, -2.0
    _, positions = best_candidates(scores, 2)
    assert positions.dtype == torch.int64
    assert positions.tolist() == [[2**24 + 1, 2**24 + 3]]
    vocabulary = make_vocabulary(7)
    spy = Spy(make_decoder(vocabulary))  # checks the dtype of the words it is fed
    for hypothesis in beam_search(spy, make_encodings(4), vocabulary):
        assert all(type(word) is int for word in hypothesis.word_ids)


def test_report_57_98_inference_is_bounded():
    """No graph is kept, no grid is copied for a beam, and what is done leaves the batch."""
    vocabulary = make_vocabulary(30)
    spy = Spy(make_decoder(vocabulary))
    found = beam_search(spy, make_encodings(12), vocabulary, SearchConfig(beam_size=4))
    images = [images for images, _ in spy.calls]
    assert spy.calls[0] == (12, 12)  # <start> stands there once an image
    assert all(rows % images == 0 and rows <= 4 * images for images, rows in spy.calls)
    assert images == sorted(images, reverse=True) and images[-1] < 12
    assert len(spy.calls) <= 51
    assert not any(hypothesis.alphas.requires_grad for hypothesis in found)


def test_report_137_length_normalisation():
    """Raw sums by default; a higher exponent never makes captions shorter on the whole."""
    vocabulary = make_vocabulary(12)
    decoder, encodings = make_decoder(vocabulary, end=2.0), make_encodings(40)
    lengths, raw = [], beam_search(decoder, encodings, vocabulary, SearchConfig(max_words=12))
    for exponent in (0.0, 1.0):
        config = SearchConfig(max_words=12, length_normalisation=exponent)
        found = beam_search(decoder, encodings, vocabulary, config)
        lengths.append(sum(len(hypothesis.word_ids) for hypothesis in found))
        if exponent == 0:
            assert [h.word_ids for h in found] == [h.word_ids for h in raw]
    assert lengths[0] < lengths[1]


def test_search_stops_when_nothing_can_win():
    vocabulary = make_vocabulary(5)
    spy = Spy(make_decoder(vocabulary, end=20.0))  # <end> at once, and nearly certain
    (hypothesis,) = beam_search(spy, make_encodings(1), vocabulary)
    assert hypothesis.word_ids == [] and hypothesis.finished
    assert hypothesis.alphas.shape == (0, P)
    assert hypothesis.log_prob == pytest.approx(0, abs=1e-3)
    assert len(spy.calls) == 1


def test_start_and_pad_are_never_said():
    vocabulary = make_vocabulary(5)
    decoder = make_decoder(vocabulary)
    with torch.no_grad():
        decoder.fc.bias[[vocabulary.start, vocabulary.pad]] = 50.0
    for hypothesis in beam_search(decoder, make_encodings(4), vocabulary):
        assert not {vocabulary.start, vocabulary.pad} & set(hypothesis.word_ids)


@pytest.mark.parametrize("words", [0, 1, 3])
def test_a_beam_wider_than_the_vocabulary(words):
    vocabulary = make_vocabulary(words)  # <unk> and <end> can be said even with no word
    decoder, encodings = make_decoder(vocabulary), make_encodings(3)
    found = beam_search(decoder, encodings, vocabulary, SearchConfig(beam_size=50, max_words=2))
    for encoding, hypothesis in zip(encodings, found, strict=True):
        best = max(
            sequences(vocabulary, longest=2),
            key=lambda words: float(forced(decoder, encoding, words, vocabulary)[0].sum()),
        )
        assert tuple(hypothesis.word_ids) == best


def test_equal_scores_go_to_the_lower_word():
    vocabulary = make_vocabulary(8)
    decoder = make_decoder(vocabulary, end=-1.0)
    with torch.no_grad():
        decoder.fc.weight.zero_()  # every word is as likely as any other, <end> less so
    for beam_size in (1, 3, 8):  # eight of the nine words fill the beam, and <end> finds no place
        config = SearchConfig(beam_size, max_words=3)
        for hypothesis in beam_search(decoder, make_encodings(2), vocabulary, config):
            assert not hypothesis.finished and hypothesis.word_ids == [1, 1, 1]


def test_best_candidates_break_ties_by_position():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (50, 30), generator=generator).float()
    for count in (1, 3, 7, 30, 40):
        values, positions = best_candidates(scores, count)
        for row, value, position in zip(
            scores.tolist(), values.tolist(), positions.tolist(), strict=True
        ):
            expected = sorted(range(30), key=lambda i: (-row[i], i))[:count]
            assert position == expected
            assert value == [row[i] for i in expected]


def test_under_bfloat16_autocast():
    """Probabilities are summed in float32, whatever the layers compute in."""
    vocabulary = make_vocabulary(20)
    decoder = make_decoder(vocabulary, dtype=torch.float32)
    encodings = make_encodings(6, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = beam_search(decoder, encodings, vocabulary)
    for encoding, hypothesis in zip(encodings, found, strict=True):
        log_probs, _ = forced(decoder, encoding, hypothesis.word_ids, vocabulary)
        assert hypothesis.log_prob == pytest.approx(float(log_probs.sum()), rel=0.05, abs=0.2)
        assert hypothesis.alphas.dtype == torch.float32
        totals = hypothesis.alphas.sum(dim=1)
        torch.testing.assert_close(totals, torch.ones_like(totals))


def test_a_grid_with_height_and_width_is_the_same_grid():
    vocabulary = make_vocabulary(8)
    decoder, encodings = make_decoder(vocabulary), make_encodings(3)
    flat = beam_search(decoder, encodings, vocabulary)
    square = beam_search(decoder, encodings.view(3, 2, 3, D), vocabulary)
    assert [h.word_ids for h in flat] == [h.word_ids for h in square]


def test_no_images_no_captions():
    vocabulary = make_vocabulary(3)
    assert beam_search(make_decoder(vocabulary), make_encodings(0), vocabulary) == []


def test_dropout_is_off_and_the_mode_comes_back():
    vocabulary = make_vocabulary(12)
    decoder, encodings = make_decoder(vocabulary), make_encodings(4)
    expected = beam_search(decoder, encodings, vocabulary)
    found = beam_search(decoder.train(), encodings, vocabulary)
    assert decoder.training and not decoder.eval().training
    assert [h.word_ids for h in found] == [h.word_ids for h in expected]


def test_scores_that_are_not_numbers_are_reported():
    vocabulary = make_vocabulary(3)
    decoder = make_decoder(vocabulary).train()
    with torch.no_grad():
        decoder.fc.bias[1] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        beam_search(decoder, make_encodings(2), vocabulary)
    assert decoder.training


@pytest.mark.parametrize(
    "wrong", [{"beam_size": 0}, {"max_words": 0}, {"length_normalisation": -0.5}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SearchConfig(**wrong)
