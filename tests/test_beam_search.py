import itertools
import math

import pytest
import torch

import captionlib.beam_search as plain
from captionlib.beam_search import repeats
from captionlib.config import DecodingConfig as SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention
from captionlib.decoding import Ensemble, diverse_beam_search, write_captions
from captionlib.decoding.sampling import draw

P, D = 6, 8


def beam_search_all(
    decoder, encoder_out, vocabulary, config, captions, generator=None
):
    """Whatever `config` asks for; a list of decoders is an ensemble."""
    if isinstance(decoder, list):
        decoder = Ensemble(decoder)
    rest = encoder_out, vocabulary, config, captions
    return write_captions(decoder, *rest, generator)


def beam_search(
    decoder,
    encoder_out,
    vocabulary,
    config=SearchConfig(),  # noqa: B008 (frozen)
    generator=None,
):
    rest = encoder_out, vocabulary, config, 1, generator
    return [found[0] for found in beam_search_all(decoder, *rest)]


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
    decoder = (
        DecoderWithAttention(5, 4, 7, len(vocabulary), encoder_dim=D)
        .to(dtype)
        .eval()
    )
    cell, fc = decoder.decode_step, decoder.fc
    with torch.no_grad():
        for layer in (decoder.init_h, decoder.init_c, cell):
            for parameter in layer.parameters():
                parameter.mul_(3)
        decoder.embedding.weight.mul_(20)
        decoder.attention.full_att.weight.mul_(4)
        decoder.init_c.weight[0] /= 2
        decoder.init_c.bias[0] = -1
        for weight in (
            cell.weight_ih,
            cell.weight_hh,
            cell.bias_ih,
            cell.bias_hh,
        ):
            weight.view(4, 7, -1)[:, 0] = 0
        # Input, forget and output gate of the first unit are open; every step adds tanh(0.25).
        cell.bias_hh.view(4, 7)[:, 0] = torch.tensor([9, 9, 0.25, 9])
        fc.weight.mul_(20)
        fc.weight[:, 0] = 0
        fc.weight[vocabulary.end, 0] = 10
        fc.bias[vocabulary.end] = end
    return decoder


def make_encodings(images, seed=0, dtype=torch.float64):
    return torch.randn(
        images, P, D, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def forced(decoder, encoding, words, vocabulary):
    """Teacher-forced log-probabilities of the words and <end>, and alphas, from `forward`."""
    caption = torch.tensor([[vocabulary.start, *words, vocabulary.end]])
    with torch.no_grad():
        out = decoder(
            encoding.unsqueeze(0), caption, torch.tensor([caption.shape[1]])
        )
    log_probs = out.logits.data.log_softmax(
        dim=1
    )  # one caption: packed order is word order
    return log_probs.gather(1, caption[0, 1:, None])[:, 0], out.alphas[0]


def sequences(vocabulary, longest, shortest=0):
    """Every caption of `shortest` to `longest` words; <unk> is a word like any other."""
    ids = sorted(
        set(range(len(vocabulary)))
        - {vocabulary.pad, vocabulary.start, vocabulary.end}
    )
    for length in range(shortest, longest + 1):
        yield from itertools.product(ids, repeat=length)


def greedy(decoder, encoding, vocabulary, max_words):
    """Written apart from the search: the likeliest word, whatever was said before it."""
    words = []
    with torch.no_grad():
        state, word = decoder.begin(encoding.unsqueeze(0)), vocabulary.start
        while True:
            logits, _, state = decoder.step(torch.tensor([word]), state)
            logits = logits[0]
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
                out = decoder(
                    encoding.unsqueeze(0),
                    caption,
                    torch.tensor([len(words) + 2]),
                )
            for word, value in enumerate(
                out.logits.data[-1].log_softmax(0).tolist()
            ):
                if word not in (vocabulary.pad, vocabulary.start):
                    candidates.append((total + value, (*words, word)))
        candidates.sort(key=lambda candidate: -candidate[0])
        kept = candidates[: config.beam_size - len(finished)]
        finished += [
            (total, words)
            for total, words in kept
            if words[-1] == vocabulary.end
        ]
        if length < config.max_words:
            live = [
                (total, words)
                for total, words in kept
                if words[-1] != vocabulary.end
            ]
        if not live or len(finished) == config.beam_size:
            break
    if not finished:
        return live[0][1], live[0][0], False
    total, words = max(
        finished, key=lambda f: f[0] / len(f[1]) ** config.length_normalisation
    )
    return words[:-1], total, True


@pytest.mark.parametrize("seed", range(6))
def test_a_beam_of_one_is_greedy_search(seed):
    vocabulary = make_vocabulary(9)
    decoder, encodings = make_decoder(vocabulary, seed), make_encodings(8, seed)
    found = beam_search(
        decoder, encodings, vocabulary, SearchConfig(beam_size=1, max_words=6)
    )
    for encoding, hypothesis in zip(encodings, found, strict=True):
        words, finished = greedy(decoder, encoding, vocabulary, max_words=6)
        assert (hypothesis.word_ids, hypothesis.finished) == (words, finished)
    assert (
        len({tuple(hypothesis.word_ids) for hypothesis in found}) > 1
    )  # images matter


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_is_exhaustive_search(seed, exponent):
    vocabulary = make_vocabulary(
        2
    )  # and <unk>: 40 captions of up to three words
    decoder, encodings = make_decoder(vocabulary, seed), make_encodings(3, seed)
    config = SearchConfig(
        beam_size=200, max_words=3, length_normalisation=exponent
    )
    found = beam_search(decoder, encodings, vocabulary, config)
    for encoding, hypothesis in zip(encodings, found, strict=True):
        totals = {
            words: float(forced(decoder, encoding, words, vocabulary)[0].sum())
            for words in sequences(vocabulary, longest=3)
        }
        best = max(
            totals,
            key=lambda words: totals[words] / (len(words) + 1) ** exponent,
        )
        assert hypothesis.finished and tuple(hypothesis.word_ids) == best
        assert hypothesis.log_prob == pytest.approx(totals[best], abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_is_exhaustive_search_where_nothing_finishes(seed):
    vocabulary = make_vocabulary(2)
    decoder = make_decoder(vocabulary, seed, end=-math.inf)
    encodings = make_encodings(3, seed)
    found = beam_search(
        decoder, encodings, vocabulary, SearchConfig(beam_size=200, max_words=3)
    )
    for encoding, hypothesis in zip(encodings, found, strict=True):
        totals = {
            words: float(
                forced(decoder, encoding, words, vocabulary)[0][:-1].sum()
            )
            for words in sequences(vocabulary, longest=3, shortest=3)
        }
        best = max(totals, key=totals.get)
        assert not hypothesis.finished and tuple(hypothesis.word_ids) == best
        assert hypothesis.log_prob == pytest.approx(totals[best], abs=1e-6)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("beam_size", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_stopping_early_and_sharing_a_batch_change_nothing(
    seed, beam_size, exponent
):
    vocabulary = make_vocabulary(3)
    decoder, encodings = (
        make_decoder(vocabulary, seed, end=3.0),
        make_encodings(6, seed),
    )
    config = SearchConfig(beam_size, max_words=5, length_normalisation=exponent)
    for encoding, hypothesis in zip(
        encodings,
        beam_search(decoder, encodings, vocabulary, config),
        strict=True,
    ):
        words, total, finished = plain_search(
            decoder, encoding, vocabulary, config
        )
        assert (tuple(hypothesis.word_ids), hypothesis.finished) == (
            tuple(words),
            finished,
        )
        assert hypothesis.log_prob == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batched_equals_one_at_a_time(dtype):
    vocabulary = make_vocabulary(30)
    decoder = make_decoder(vocabulary, dtype=dtype)
    encodings = make_encodings(12, dtype=dtype)
    batched = beam_search(decoder, encodings, vocabulary)
    assert (
        len({len(hypothesis.word_ids) for hypothesis in batched}) > 1
    )  # they leave at odd times
    for encoding, together in zip(encodings, batched, strict=True):
        (alone,) = beam_search(decoder, encoding.unsqueeze(0), vocabulary)
        assert (alone.word_ids, alone.finished) == (
            together.word_ids,
            together.finished,
        )
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
        log_probs, alphas = forced(
            decoder, encoding, hypothesis.word_ids, vocabulary
        )
        words = len(hypothesis.word_ids)
        counted = log_probs if hypothesis.finished else log_probs[:words]
        assert hypothesis.log_prob == pytest.approx(
            float(counted.sum()), abs=1e-5
        )
        assert hypothesis.alphas.shape == (words, P)
        torch.testing.assert_close(
            hypothesis.alphas.sum(dim=1), torch.ones(words)
        )
        torch.testing.assert_close(hypothesis.alphas, alphas[:words].float())


def test_report_18_64_142_157_191_196_no_beam_finishes():
    """A decoder that never says <end>: a caption comes back, marked, with its alphas."""
    vocabulary = make_vocabulary(10)
    decoder, encodings = (
        make_decoder(vocabulary, end=-math.inf),
        make_encodings(3),
    )
    for beam_size in (1, 3):
        found = beam_search(
            decoder, encodings, vocabulary, SearchConfig(beam_size, max_words=4)
        )
        for hypothesis in found:
            assert not hypothesis.finished
            assert len(
                hypothesis.word_ids
            ) == 4 and hypothesis.alphas.shape == (4, P)
            assert math.isfinite(hypothesis.log_prob)


def test_one_image_finishes_and_its_neighbour_does_not():
    vocabulary = make_vocabulary(10)
    decoder, encodings = make_decoder(vocabulary), make_encodings(16)
    config = SearchConfig(beam_size=1, max_words=3)
    finished = [
        hypothesis.finished
        for hypothesis in beam_search(decoder, encodings, vocabulary, config)
    ]
    assert True in finished and False in finished


class Spy(torch.nn.Module):
    """A decoder that notes how `step` is called."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder, self.calls = decoder, []

        self.eval()

    def begin(self, encoder_out):
        return self.decoder.begin(encoder_out)

    def step(self, words, state):
        assert words.dtype == torch.int64
        assert torch.is_inference_mode_enabled()
        self.calls.append((len(state.values), len(words)))
        return self.decoder.step(words, state)


def test_report_138_155_169_175_188_integer_indices():
    """A position beyond 2**24 has no float32 of its own; as an integer it keeps its word."""
    log_probs = torch.full((2, 2**23 + 3), -math.inf)
    log_probs[1, 2**23 + 1], log_probs[1, 2**23 - 1] = -1.0, -2.0
    start = torch.zeros(1, 2, 1, dtype=torch.long)
    beam = plain.Beam(start, torch.zeros(1, 2), torch.zeros(1, 2, 0, 4))
    longer, rows = plain.extend(beam, log_probs, torch.ones(2, 4), 2)
    assert longer.words[0, :, 1].tolist() == [2**23 + 1, 2**23 - 1]
    assert rows.tolist() == [[1, 1]]
    vocabulary = make_vocabulary(7)
    spy = Spy(
        make_decoder(vocabulary)
    )  # checks the dtype of the words it is fed
    for hypothesis in beam_search(spy, make_encodings(4), vocabulary):
        assert all(type(word) is int for word in hypothesis.word_ids)


def test_report_57_98_inference_is_bounded():
    """No graph is kept, no grid is copied for a beam, and what is done leaves the batch."""
    vocabulary = make_vocabulary(30)
    spy = Spy(make_decoder(vocabulary))
    found = beam_search(
        spy, make_encodings(12), vocabulary, SearchConfig(beam_size=4)
    )
    images = [images for images, _ in spy.calls]
    assert spy.calls[0] == (12, 12)  # <start> stands there once an image
    assert all(
        rows % images == 0 and rows <= 4 * images for images, rows in spy.calls
    )
    assert images == sorted(images, reverse=True) and images[-1] < 12
    assert len(spy.calls) <= 51
    assert not any(hypothesis.alphas.requires_grad for hypothesis in found)


def test_report_137_length_normalisation():
    """Raw sums by default; a higher exponent never makes captions shorter on the whole."""
    vocabulary = make_vocabulary(12)
    decoder, encodings = make_decoder(vocabulary, end=2.0), make_encodings(40)
    lengths, raw = (
        [],
        beam_search(decoder, encodings, vocabulary, SearchConfig(max_words=12)),
    )
    for exponent in (0.0, 1.0):
        config = SearchConfig(max_words=12, length_normalisation=exponent)
        found = beam_search(decoder, encodings, vocabulary, config)
        lengths.append(sum(len(hypothesis.word_ids) for hypothesis in found))
        if exponent == 0:
            assert [h.word_ids for h in found] == [h.word_ids for h in raw]
    assert lengths[0] < lengths[1]


def test_search_stops_when_nothing_can_win():
    vocabulary = make_vocabulary(5)
    spy = Spy(
        make_decoder(vocabulary, end=20.0)
    )  # <end> at once, and nearly certain
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
    vocabulary = make_vocabulary(
        words
    )  # <unk> and <end> can be said even with no word
    decoder, encodings = make_decoder(vocabulary), make_encodings(3)
    found = beam_search(
        decoder, encodings, vocabulary, SearchConfig(beam_size=50, max_words=2)
    )
    for encoding, hypothesis in zip(encodings, found, strict=True):
        best = max(
            sequences(vocabulary, longest=2),
            key=lambda words: float(
                forced(decoder, encoding, words, vocabulary)[0].sum()
            ),
        )
        assert tuple(hypothesis.word_ids) == best


def test_under_bfloat16_autocast():
    """Probabilities are summed in float32, whatever the layers compute in."""
    vocabulary = make_vocabulary(20)
    decoder = make_decoder(vocabulary, dtype=torch.float32)
    encodings = make_encodings(6, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = beam_search(decoder, encodings, vocabulary)
    for encoding, hypothesis in zip(encodings, found, strict=True):
        log_probs, _ = forced(
            decoder, encoding, hypothesis.word_ids, vocabulary
        )
        assert hypothesis.log_prob == pytest.approx(
            float(log_probs.sum()), rel=0.05, abs=0.2
        )
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
    assert (
        beam_search(make_decoder(vocabulary), make_encodings(0), vocabulary)
        == []
    )


def test_scores_that_are_not_numbers_are_reported():
    vocabulary = make_vocabulary(3)
    decoder = make_decoder(vocabulary)
    with torch.no_grad():
        decoder.fc.bias[1] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        beam_search(decoder, make_encodings(2), vocabulary)


# ------------------------------------------------------------------------------ what may be said

OPTIONS = {
    "plain": SearchConfig(max_words=7),
    "normalised": SearchConfig(max_words=7, length_normalisation=1.0),
    "long": SearchConfig(max_words=7, min_words=5),
    "no <unk>": SearchConfig(max_words=7, forbid_unk=True),
    "no repeats": SearchConfig(max_words=7, no_repeat=2),
    "groups": SearchConfig(beam_size=6, max_words=7, groups=3),
    "groups of one": SearchConfig(
        beam_size=4, max_words=7, groups=4, diversity=2.0
    ),
    "sampled": SearchConfig(1, max_words=7, sample=True),
    "sampled, few": SearchConfig(
        1, max_words=7, sample=True, top_k=3, top_p=0.9, temperature=0.7
    ),
    "all at once": SearchConfig(4, 7, 0.5, 3, True, 1, 2, 1.5),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batched_equals_one_at_a_time_with_every_option(option, dtype):
    vocabulary, config = make_vocabulary(12), OPTIONS[option]
    decoder, encodings = (
        make_decoder(vocabulary, dtype=dtype),
        make_encodings(9, dtype=dtype),
    )
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    captions = 3 if config.sample else config.beam_size
    batched = beam_search_all(
        decoder, encodings, vocabulary, config, captions, generators[0]
    )
    assert (
        len(
            {
                len(hypothesis.word_ids)
                for found in batched
                for hypothesis in found
            }
        )
        > 1
    )
    for encoding, together in zip(encodings, batched, strict=True):
        (alone,) = beam_search_all(
            decoder,
            encoding.unsqueeze(0),
            vocabulary,
            config,
            captions,
            generators[1],
        )
        assert [h.word_ids for h in alone] == [h.word_ids for h in together]
        for one, other in zip(alone, together, strict=True):
            assert one.finished == other.finished
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
            torch.testing.assert_close(one.alphas, other.alphas)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_caption_comes_with_the_models_log_probability_and_alphas(option):
    vocabulary, config = make_vocabulary(12), OPTIONS[option]
    decoder, encodings = make_decoder(vocabulary), make_encodings(5)
    before = encodings.clone()
    for encoding, found in zip(
        encodings,
        beam_search_all(decoder, encodings, vocabulary, config, 1),
        strict=True,
    ):
        for hypothesis in found:
            log_probs, alphas = forced(
                decoder, encoding, hypothesis.word_ids, vocabulary
            )
            words = len(hypothesis.word_ids)
            counted = log_probs if hypothesis.finished else log_probs[:words]
            assert hypothesis.log_prob == pytest.approx(
                float(counted.sum()), abs=1e-5
            )
            torch.testing.assert_close(
                hypothesis.alphas, alphas[:words].float()
            )
    assert torch.equal(
        encodings, before
    )  # grids move about, but not the caller's


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [
        {"no_repeat": 1},
        {"no_repeat": 2},
        {"min_words": 2},
        {"forbid_unk": True},
        {
            "no_repeat": 2,
            "min_words": 3,
            "forbid_unk": True,
            "length_normalisation": 1.0,
        },
    ],
)
def test_a_wide_beam_finds_the_best_that_is_allowed(options, seed):
    vocabulary = make_vocabulary(2)
    decoder, encodings = make_decoder(vocabulary, seed), make_encodings(3, seed)
    config = SearchConfig(beam_size=500, max_words=4, **options)

    def allowed(words):
        n = config.no_repeat
        runs = (
            [words[i : i + n] for i in range(len(words) - n + 1)] if n else []
        )
        return (
            len(words) >= config.min_words
            and len(set(runs)) == len(runs)
            and not (config.forbid_unk and vocabulary.unk in words)
        )

    for encoding, found in zip(
        encodings,
        beam_search_all(decoder, encodings, vocabulary, config, 4),
        strict=True,
    ):
        scores = {}
        for words in filter(allowed, sequences(vocabulary, longest=4)):
            total = float(forced(decoder, encoding, words, vocabulary)[0].sum())
            scores[words] = (
                total / (len(words) + 1) ** config.length_normalisation
            )
        best = sorted(scores, key=scores.get, reverse=True)[:4]
        assert [tuple(hypothesis.word_ids) for hypothesis in found] == best


def test_unk_is_never_said_where_it_is_forbidden():
    vocabulary = make_vocabulary(6)
    decoder, encodings = make_decoder(vocabulary), make_encodings(5)
    with torch.no_grad():
        decoder.fc.bias[vocabulary.unk] = 20.0
    for forbidden in (False, True):
        for settings in (
            {},
            {"beam_size": 1, "sample": True},
            {"beam_size": 4, "groups": 2},
        ):
            config = SearchConfig(**settings, max_words=6, forbid_unk=forbidden)
            found = beam_search(decoder, encodings, vocabulary, config)
            assert (
                any(vocabulary.unk in h.word_ids for h in found)
                is not forbidden
            )


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("sample", [False, True])
def test_no_run_of_words_comes_twice(n, sample):
    vocabulary = make_vocabulary(6)
    decoder, encodings = (
        make_decoder(vocabulary, end=-math.inf),
        make_encodings(6),
    )
    beam_size = 1 if sample else 4

    def repeated(found):
        runs = [
            [
                tuple(h.word_ids[i : i + n])
                for i in range(len(h.word_ids) - n + 1)
            ]
            for h in found
        ]
        return any(len(set(each)) < len(each) for each in runs)

    config = SearchConfig(beam_size, max_words=20, sample=sample)
    assert repeated(beam_search(decoder, encodings, vocabulary, config))
    config = SearchConfig(beam_size, max_words=20, sample=sample, no_repeat=n)
    assert not repeated(beam_search(decoder, encodings, vocabulary, config))


@pytest.mark.parametrize("sample", [False, True])
def test_a_caption_that_may_say_nothing_more_comes_back_unfinished(sample):
    """Each of the three words once, no <end>: then nothing is left, long before `max_words`."""
    vocabulary = make_vocabulary(2)
    decoder, encodings = make_decoder(vocabulary), make_encodings(3)
    config = SearchConfig(
        1 if sample else 3, 20, min_words=10, no_repeat=1, sample=sample
    )
    for hypothesis in beam_search(decoder, encodings, vocabulary, config):
        assert not hypothesis.finished and len(set(hypothesis.word_ids)) == 3
        assert hypothesis.alphas.shape == (3, P) and math.isfinite(
            hypothesis.log_prob
        )


def test_repeats_by_hand():
    assert repeats([7, 1, 2, 1], 2) == [2]
    assert repeats([7, 1, 2, 1, 2], 3) == [1]
    assert set(repeats([7, 1, 1, 1], 2)) == {1}
    assert repeats([7, 1, 2], 3) == repeats([7], 2) == []
    assert set(repeats([7, 1, 2], 1)) == {7, 1, 2}


# ------------------------------------------------------------------------------ several captions


def test_the_first_of_several_is_the_one():
    vocabulary = make_vocabulary(10)
    decoder, encodings = make_decoder(vocabulary), make_encodings(8)
    one = beam_search(decoder, encodings, vocabulary)
    several = beam_search_all(decoder, encodings, vocabulary, SearchConfig(), 5)
    assert [h.word_ids for h in one] == [found[0].word_ids for found in several]
    for found in several:
        assert len({tuple(h.word_ids) for h in found}) == len(found) == 5
        ended = [h.log_prob for h in found if h.finished]
        assert ended == sorted(ended, reverse=True) and all(
            h.finished for h in found[: len(ended)]
        )


def test_an_unfinished_caption_is_not_said_again():
    """One word at most: with it, "w0" ends, and must not come back as a beginning, too."""
    vocabulary = make_vocabulary(1)
    decoder, encodings = make_decoder(vocabulary), make_encodings(4)
    config = SearchConfig(beam_size=20, max_words=1)
    for found in beam_search_all(decoder, encodings, vocabulary, config, 20):
        assert len(found) == 3 and all(h.finished for h in found)


def diverse_search(decoder, encoding, vocabulary, config):
    """Diverse beam search from its definition: the captions of each group, no early stop."""
    size = config.beam_size // config.groups
    live, finished = (
        [[(0.0, ())] for _ in range(config.groups)],
        [[] for _ in range(config.groups)],
    )
    for length in range(config.max_words + 1):
        taken = []
        for g in range(config.groups):
            candidates = []
            for total, words in live[g]:
                caption = torch.tensor(
                    [[vocabulary.start, *words, vocabulary.end]]
                )
                with torch.no_grad():
                    out = decoder(
                        encoding.unsqueeze(0),
                        caption,
                        torch.tensor([len(words) + 2]),
                    )
                for word, value in enumerate(
                    out.logits.data[-1].log_softmax(0).tolist()
                ):
                    if word not in (vocabulary.pad, vocabulary.start):
                        rank = (
                            total + value - config.diversity * taken.count(word)
                        )
                        candidates.append((rank, total + value, (*words, word)))
            candidates.sort(key=lambda candidate: -candidate[0])
            kept = [
                candidate[1:]
                for candidate in candidates[: size - len(finished[g])]
            ]
            taken += [words[-1] for _, words in kept]
            finished[g] += [
                (t, words) for t, words in kept if words[-1] == vocabulary.end
            ]
            if length < config.max_words:
                live[g] = [
                    (t, words)
                    for t, words in kept
                    if words[-1] != vocabulary.end
                ]
            best = max((t for t, _ in finished[g]), default=-math.inf)
            live[g] = [
                caption for caption in live[g] if caption[0] > best
            ]  # the stop of a group
    return [
        max(ended)[1][:-1] if ended else max(going)[1]
        for ended, going in zip(finished, live, strict=True)
    ]


@pytest.mark.parametrize("diversity", [0.3, 2.0, 50.0])
@pytest.mark.parametrize("beam_size, groups", [(2, 2), (4, 2), (6, 3), (5, 5)])
def test_groups_are_diverse_beam_search(beam_size, groups, diversity):
    vocabulary = make_vocabulary(5)
    decoder, encodings = make_decoder(vocabulary, end=3.0), make_encodings(6)
    config = SearchConfig(
        beam_size, max_words=5, groups=groups, diversity=diversity
    )
    for encoding, found in zip(
        encodings,
        beam_search_all(decoder, encodings, vocabulary, config, groups),
        strict=True,
    ):
        expected = diverse_search(decoder, encoding, vocabulary, config)
        assert sorted(tuple(h.word_ids) for h in found) == sorted(expected)


def test_groups_that_do_not_mind_each_other_find_the_same():
    vocabulary = make_vocabulary(10)
    decoder, encodings = make_decoder(vocabulary), make_encodings(8)
    plain = beam_search_all(
        decoder, encodings, vocabulary, SearchConfig(beam_size=2), 2
    )
    config = SearchConfig(beam_size=6, groups=3, diversity=0.0)
    for first, found in zip(
        plain,
        beam_search_all(decoder, encodings, vocabulary, config, 6),
        strict=True,
    ):
        ids = [h.word_ids for h in found]
        assert ids == [ids[0]] * 3 + [ids[3]] * 3
        assert [ids[0], ids[3]] == [h.word_ids for h in first]
    config = SearchConfig(
        beam_size=2, groups=1, diversity=9.0
    )  # one group has none to avoid
    again = beam_search_all(decoder, encodings, vocabulary, config, 2)
    assert [[h.word_ids for h in f] for f in again] == [
        [h.word_ids for h in f] for f in plain
    ]


def test_groups_that_avoid_each_other_begin_differently():
    vocabulary = make_vocabulary(10)
    decoder, encodings = make_decoder(vocabulary), make_encodings(8)
    config = SearchConfig(beam_size=4, groups=4, diversity=1000.0, min_words=1)
    for found in beam_search_all(decoder, encodings, vocabulary, config, 4):
        assert len({h.word_ids[0] for h in found}) == 4


# --------------------------------------------------------------------------------------- sampling


def test_captions_are_drawn_as_often_as_they_are_likely():
    vocabulary = make_vocabulary(2)
    decoder, encodings = make_decoder(vocabulary, 1), make_encodings(1)
    with torch.no_grad():
        decoder.fc.weight.div_(6)  # less sure of itself
    config, draws = SearchConfig(1, max_words=2, sample=True), 4000
    generator = torch.Generator().manual_seed(0)
    (found,) = beam_search_all(
        decoder, encodings, vocabulary, config, draws, generator
    )
    assert len(found) == draws
    # <start> and <pad> are never drawn, so captions share out what the model leaves to the others.
    seen = {}
    for hypothesis in found:
        seen.setdefault((*hypothesis.word_ids, hypothesis.finished), []).append(
            hypothesis
        )
    total = 0.0
    for same in seen.values():
        words = same[0].word_ids
        expected = 1.0
        for length in range(len(words) + same[0].finished):
            p = distribution(decoder, encodings[0], words[:length], vocabulary)
            expected *= p[(*words, vocabulary.end)[length]]
        if not same[0].finished:
            expected *= (
                1
                - distribution(decoder, encodings[0], words, vocabulary)[
                    vocabulary.end
                ]
            )
        total += expected
        error = math.sqrt(expected * (1 - expected) / draws)
        assert abs(len(same) / draws - expected) < 4 * error + 1e-3
    assert len(seen) > 4 and total == pytest.approx(1, abs=0.01)


def distribution(decoder, encoding, words, vocabulary):
    """Of the next word, <start> and <pad> left out."""
    caption = torch.tensor([[vocabulary.start, *words, vocabulary.end]])
    with torch.no_grad():
        out = decoder(
            encoding.unsqueeze(0), caption, torch.tensor([len(words) + 2])
        )
    logits = out.logits.data[-1]
    logits[[vocabulary.start, vocabulary.pad]] = -math.inf
    return logits.softmax(0).tolist()


@pytest.mark.parametrize(
    "settings", [{"top_k": 1}, {"temperature": 1e-3}, {"top_p": 1e-6}]
)
def test_a_draw_without_a_choice_is_greedy(settings):
    vocabulary = make_vocabulary(9)
    decoder, encodings = make_decoder(vocabulary), make_encodings(6)
    config = SearchConfig(1, sample=True, **settings)
    greedy = beam_search(decoder, encodings, vocabulary, SearchConfig(1))
    for found, best in zip(
        beam_search_all(decoder, encodings, vocabulary, config, 3),
        greedy,
        strict=True,
    ):
        assert [h.word_ids for h in found] == [best.word_ids] * 3
        assert found[0].log_prob == pytest.approx(
            best.log_prob
        )  # whatever the temperature


def test_a_seed_fixes_the_draws():
    vocabulary = make_vocabulary(9)
    decoder, encodings = make_decoder(vocabulary), make_encodings(6)
    with torch.no_grad():
        decoder.fc.weight.div_(4)
    config = SearchConfig(1, sample=True, max_words=10)

    def ids(seed):
        generator = torch.Generator().manual_seed(seed)
        found = beam_search_all(
            decoder, encodings, vocabulary, config, 4, generator
        )
        return [[h.word_ids for h in captions] for captions in found]

    first = ids(0)
    assert first == ids(0) != ids(1)
    assert all(
        len({tuple(words) for words in captions}) > 1 for captions in first
    )


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("top_k", [0, 1, 4])
def test_a_nucleus_is_the_fewest_words_that_are_likely_enough(top_k, top_p):
    generator = torch.Generator().manual_seed(0)
    config = SearchConfig(1, sample=True, top_k=top_k, top_p=top_p)
    numbers = torch.cat(
        [torch.arange(0, 1, 1 / 4000), torch.tensor([1 - 2**-24])]
    )
    for _ in range(5):
        p = (2 * torch.randn(8, generator=generator)).softmax(0)
        order = p.argsort(descending=True).tolist()[: top_k or None]
        likely, nucleus, mass = sum(p[word] for word in order), [], 0.0
        for word in order:
            if mass < top_p:
                nucleus.append(word)
                mass += p[word] / likely
        drawn = draw(p.log().expand(len(numbers), -1), numbers, config)
        assert set(drawn.tolist()) <= set(nucleus)
        shares = drawn.bincount(minlength=8) / len(numbers)
        for word in nucleus:
            expected = float(p[word] / likely / mass)
            assert float(shares[word]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_temperature_divides_the_logarithms(temperature):
    p = (
        2 * torch.randn(8, generator=torch.Generator().manual_seed(0))
    ).softmax(0)
    numbers = torch.arange(0, 1, 1 / 4000)
    config = SearchConfig(1, sample=True, temperature=temperature)
    drawn = draw(p.log().expand(len(numbers), -1), numbers, config)
    expected = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
    torch.testing.assert_close(
        drawn.bincount(minlength=8) / len(numbers), expected, atol=1e-3, rtol=0
    )


def test_what_is_forbidden_is_never_drawn():
    log_probs = torch.tensor(
        [[-math.inf, 0.3, -math.inf, 0.7, -math.inf]]
    ).log_softmax(1)
    numbers = torch.tensor([0.0, 0.25, 0.5, 0.999, 1 - 2**-24])
    for settings in ({}, {"temperature": 9.0}, {"top_k": 4}, {"top_p": 0.99}):
        config = SearchConfig(1, sample=True, **settings)
        assert set(draw(log_probs.expand(5, -1), numbers, config).tolist()) == {
            1,
            3,
        }


# -------------------------------------------------------------------------------------- ensembles


def test_a_decoder_twice_is_the_decoder():
    vocabulary = make_vocabulary(10)
    decoder, encodings = make_decoder(vocabulary), make_encodings(6)
    single = beam_search(decoder, encodings, vocabulary)
    for encoder_out in (encodings, [encodings, encodings]):
        double = beam_search([decoder, decoder], encoder_out, vocabulary)
        for one, other in zip(single, double, strict=True):
            assert (one.word_ids, one.finished) == (
                other.word_ids,
                other.finished,
            )
            assert one.log_prob == pytest.approx(other.log_prob)
            torch.testing.assert_close(one.alphas, other.alphas)


@pytest.mark.parametrize("seed", range(3))
def test_an_ensemble_averages_probabilities(seed):
    vocabulary = make_vocabulary(2)
    decoders = [
        make_decoder(vocabulary, seed),
        make_decoder(vocabulary, seed + 10),
    ]
    grids = [
        make_encodings(3, seed),
        make_encodings(3, seed + 10).repeat(1, 2, 1),
    ]  # 6 and 12 cells
    config = SearchConfig(beam_size=200, max_words=3)
    found = beam_search(decoders, grids, vocabulary, config)
    for i, hypothesis in enumerate(found):
        scores = {}
        for words in sequences(vocabulary, longest=3):
            p = [
                forced(decoder, grid[i], words, vocabulary)[0].exp()
                for decoder, grid in zip(decoders, grids, strict=True)
            ]
            scores[words] = float(((p[0] + p[1]) / 2).log().sum())
        best = max(scores, key=scores.get)
        assert tuple(hypothesis.word_ids) == best
        assert hypothesis.log_prob == pytest.approx(scores[best], abs=1e-6)
        alphas = forced(decoders[0], grids[0][i], best, vocabulary)[1][
            : len(best)
        ]
        torch.testing.assert_close(hypothesis.alphas, alphas.float())


def test_an_ensemble_needs_parts_that_fit():
    vocabulary, other = make_vocabulary(5), make_vocabulary(6)
    pair, encodings = (
        [make_decoder(vocabulary), make_decoder(other)],
        make_encodings(2),
    )
    with pytest.raises(ValueError, match="one vocabulary, got 9, 10 words"):
        beam_search(pair, encodings, vocabulary)
    for wrong in ([encodings], [encodings, make_encodings(3)]):
        with pytest.raises(
            ValueError, match="expected encodings for each of 2 decoders"
        ):
            beam_search(pair, wrong, vocabulary)


# --------------------------------------------------------------------------------------- the cost


def test_beams_that_have_finished_cost_nothing():
    """Rows are laid out for live captions; only to fill up to the fullest image are there more."""
    vocabulary = make_vocabulary(30)
    for config, captions in (
        (SearchConfig(beam_size=4), 1),
        (SearchConfig(beam_size=4, groups=2), 2),
        (SearchConfig(1, sample=True), 4),
    ):
        spy = Spy(make_decoder(vocabulary))
        found = beam_search_all(
            spy, make_encodings(12), vocabulary, config, captions
        )
        longest = max(len(h.word_ids) for captions in found for h in captions)
        images = [images for images, _ in spy.calls]
        assert images == sorted(images, reverse=True) and images[-1] < 12
        assert all(
            rows % images == 0 and rows <= 4 * images
            for images, rows in spy.calls
        )
        assert spy.calls[-1][1] <= spy.calls[1][1] / 4
        assert config.beam_size > 1 or len(spy.calls) == longest + 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"beam_size": 0},
        {"max_words": 0},
        {"length_normalisation": -0.5},
        {"length_normalisation": math.nan},
        {"min_words": -1},
        {"min_words": 51},
        {"no_repeat": -1},
        {"groups": 0},
        {"groups": 2},
        {"diversity": -1.0},
        {"temperature": 0.0, "sample": True, "beam_size": 1},
        {"temperature": 0.5},
        {"top_k": -1},
        {"top_k": 5},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_p": 0.9},
        {"beam_size": 5, "sample": True},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))) as error:
        SearchConfig(**wrong)
    assert "\n" not in str(error.value)


def test_the_number_of_captions_is_checked():
    vocabulary = make_vocabulary(3)
    decoder, encodings = make_decoder(vocabulary), make_encodings(2)
    for config, captions in (
        (SearchConfig(), 0),
        (SearchConfig(), 6),
        (SearchConfig(1), 2),
    ):
        with pytest.raises(ValueError, match="captions must be in 1 to"):
            beam_search_all(decoder, encodings, vocabulary, config, captions)
    with pytest.raises(ValueError, match="captions must be at least 1, got 0"):
        beam_search_all(
            decoder, encodings, vocabulary, SearchConfig(1, sample=True), 0
        )
    assert (
        beam_search_all(
            decoder, make_encodings(0), vocabulary, SearchConfig(), 5
        )
        == []
    )


def test_a_decoder_in_training_mode_is_refused():
    vocabulary = make_vocabulary(5)
    decoder = make_decoder(vocabulary).train()
    settings = [
        SearchConfig(beam_size=2),
        SearchConfig(beam_size=2, groups=2),
        SearchConfig(beam_size=1, sample=True),
    ]
    for config in settings:
        with pytest.raises(ValueError, match="eval"):
            beam_search(decoder, make_encodings(2), vocabulary, config)


@pytest.mark.parametrize("captions", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_one_diverse_group_is_the_plain_search(seed, captions):
    vocabulary = make_vocabulary(9)
    decoder = make_decoder(vocabulary, seed, end=2.0)
    encodings = make_encodings(5, seed)
    config = SearchConfig(beam_size=4, max_words=7, length_normalisation=0.7)
    rest = encodings, vocabulary, config, captions
    ours = diverse_beam_search(decoder, *rest)
    theirs = plain.beam_search_all(decoder, *rest)
    for some, others in zip(ours, theirs, strict=True):
        assert [h.word_ids for h in some] == [h.word_ids for h in others]
        for one, other in zip(some, others, strict=True):
            assert one.log_prob == pytest.approx(other.log_prob)
            torch.testing.assert_close(one.alphas, other.alphas)
