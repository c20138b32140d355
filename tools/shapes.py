"""Check the shape comments: `python -m tools.shapes` runs the package and
compares.

A comment `# (N, E + D)` at the end of an assignment, a return or a NamedTuple's
field states the shape of the value. This tool executes every such line of
captionlib/, with a different size for each letter, and compares shapes with
comments. `tour` fixes most letters; others, such as N, are bound to the first
size they meet in a function call or a tuple, and must keep it.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType

PACKAGE = Path("captionlib")
SHAPE = re.compile(
    r"# (data )?\(((?:[^(),]|\(\w+\))+(?:,(?:[^(),]|\(\w+\))*)+)\)(?=[\s,:;]|$)"
)


@dataclass(frozen=True)
class Comment:
    """A shape comment and its statement."""

    file: str
    line: int
    text: str
    dims: tuple[str, ...]  # expressions in letters
    of_data: bool  # of the `data` of a PackedSequence
    first: int  # the statement's first line
    target: str | None  # what it assigns; None: it returns
    record: str | None = None  # the NamedTuple whose field it is

    def __str__(self):
        return f"{self.file}:{self.line}: {self.text}"


def expression(dim: str) -> str:
    """A dimension as Python: `4H` is 4*H, `max length - 1` is max_length-1,
    `B'` is B_."""
    dim = dim.strip().replace("'", "_")
    return re.sub(
        r"(?<=\d)(?=[A-Z])", "*", re.sub(r"(?<=[a-z]) (?=[a-z])", "_", dim)
    )


def comments(path: Path) -> list[Comment]:
    """All shape comments of a module.

    Raises:
        ValueError: if a comment belongs to nothing with a shape.
    """
    source = path.read_text(encoding="utf-8")
    places, records = {}, {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and "NamedTuple" in map(
            ast.unparse, node.bases
        ):
            records |= {field.end_lineno: node.name for field in node.body}
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.Return)):
            places[node.end_lineno] = node
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        match = (
            SHAPE.match(token.string)
            if token.type == tokenize.COMMENT
            else None
        )
        line = token.start[0]
        if not match or token.line.lstrip().startswith("#"):
            continue
        if line not in places:
            raise ValueError(
                f"{path}:{line}: '{match.group()}' belongs to no assignment or "
                "return"
            )
        node = places[line]
        targets = getattr(node, "targets", None) or [
            getattr(node, "target", None)
        ]
        target = ast.unparse(targets[0]) if targets[0] is not None else None
        dims = tuple(
            expression(dim) for dim in match.group(2).split(",") if dim.strip()
        )
        found.append(
            Comment(
                str(path), line, match.group(), dims, bool(match.group(1)), node.lineno, target,
                records.get(line),
            )
        )  # fmt: skip
    return found


class Watch:
    """Checks the values of commented lines while the package runs.

    Attributes:
        sizes: the current sizes of the letters.
        checked: how many times each comment was checked.
        problems: one line for each mismatch.
    """

    def __init__(self, found: list[Comment]):
        self.sizes: dict[str, int] = {}
        self.checked: Counter[Comment] = Counter()
        self.problems: dict[str, None] = {}
        self.by_file: dict[str, list[Comment]] = {}
        for comment in found:
            if not comment.record:
                self.by_file.setdefault(
                    str(Path(comment.file).resolve()), []
                ).append(comment)
        self.records = [comment for comment in found if comment.record]
        self._lines: dict = {}  # of each code object, {line: comment}

    def compare(
        self, comment: Comment, value, names: dict, bound: dict
    ) -> None:
        """Compare `value` with its comment; unknown letters are added to
        `bound`."""
        if len(set(self.sizes.values())) < len(self.sizes):
            raise ValueError(
                f"two letters share a size, so neither is checked: {self.sizes}"
            )
        if isinstance(value, tuple) and not hasattr(value, "data"):
            for each in value:  # `scores, ids = ...  # (B, K)`: both
                self.compare(comment, each, names, bound)
            return
        if comment.of_data:
            value = value.data
        self.checked[comment] += 1
        shape = tuple(value.shape)
        if len(shape) != len(comment.dims):
            self.problems[f"{comment}, and the shape is {shape}"] = None
            return
        known = {"len": len} | names | bound | self.sizes
        for dim, size in zip(comment.dims, shape, strict=True):
            free = re.fullmatch(r"(\w+) *([+-] *\d+)?", dim)
            if (
                free
                and free[1].isidentifier()
                and not isinstance(known.get(free[1]), int)
            ):
                known[free[1]] = bound[free[1]] = size - int(
                    (free[2] or "0").replace(" ", "")
                )
            try:
                wanted = eval(dim, {"__builtins__": {}}, known)
            except (NameError, TypeError) as error:
                self.problems[f"{comment}: {dim} is not known ({error})"] = None
                return
            if wanted != size:
                self.problems[
                    f"{comment}, and the shape is {shape}: {dim} is {wanted}"
                ] = None
                return

    def _of(self, code) -> dict[int, Comment]:
        if code not in self._lines:
            here = {line for _, _, line in code.co_lines()}
            self._lines[code] = {
                line: comment
                for comment in self.by_file.get(code.co_filename, ())
                for line in range(comment.first, comment.line + 1)
                if comment.first in here
            }
        return self._lines[code]

    def _enter(self, frame: FrameType, event: str, _):
        if frame.f_code.co_filename not in self.by_file or not self._of(
            frame.f_code
        ):
            return None
        places, running, bound = self._of(frame.f_code), None, {}

        def step(frame, event, value):
            nonlocal running
            after = places.get(frame.f_lineno) if event == "line" else None
            if event == "exception":
                running = None
            elif running and after is not running:
                if running.target is not None:
                    value = eval(
                        running.target, frame.f_globals, frame.f_locals
                    )
                self.compare(running, value, frame.f_locals, bound)
            if event == "line":
                running = after
            return step

        return step

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch whatever runs inside the block."""
        before, made = sys.gettrace(), []
        for comment in self.records:
            module = import_module(
                ".".join(Path(comment.file).with_suffix("").parts[-2:])
            )
            if (record := getattr(module, comment.record)) not in made:
                made.append(record)
        originals = [record.__new__ for record in made]
        for record, original in zip(made, originals, strict=True):
            record.__new__ = staticmethod(self._checking(original))
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)
            for record, original in zip(made, originals, strict=True):
                record.__new__ = staticmethod(original)

    def _checking(self, original):
        def new(record, *args, **kwargs):
            made, bound = original(record, *args, **kwargs), {}
            for comment in self.records:
                if comment.record == record.__name__:
                    self.compare(
                        comment,
                        getattr(made, comment.target),
                        made._asdict(),
                        bound,
                    )
            return made

        return new


def tour(watch: Watch, folder: Path) -> None:
    """Run every commented line of the package on random numbers and small
    scenes."""
    import torch

    from captionlib.beam_search import beam_search
    from captionlib.captioner import Captioner
    from captionlib.config import (
        DataConfig,
        EngineConfig,
        ModelConfig,
        SearchConfig,
    )
    from captionlib.data import Vocabulary, prepare
    from captionlib.decoder import DecoderWithAttention
    from captionlib.encoder import Encoder, FeatureDataset
    from captionlib.engine.features import cache_features
    from captionlib.engine.fine_tuning import HalfEncoded, stages
    from captionlib.engine.self_critical import SelfCritical
    from captionlib.grounding import grounding
    from captionlib.hard_attention import HardAttention, hard_loss
    from captionlib.io.files import read_json
    from captionlib.io.images import decoding_pool
    from captionlib.io.prepared import image_file
    from captionlib.io.word_vectors import read_glove
    from captionlib.parts import (
        DotAttention,
        EvenAttention,
        OpenGate,
        nearest_images,
        word_vectors,
    )
    from captionlib.toy.scenes import write_scenes
    from captionlib.training import caption_loss
    from captionlib.transformer import PrefixDecoder, TransformerDecoder
    from captionlib.visualize import show_attention

    torch.manual_seed(0)
    B, n, T = 3, 5, 11
    sizes = {
        "T": T,
        "E": 7,
        "D": 13,
        "H": 17,
        "A": 19,
        "V": 23,
        "P": 31,
        "max_length": 9,
    }
    watch.sizes = sizes
    vocabulary = Vocabulary.build(
        [[f"word{i}" for i in range(sizes["V"] - 4)]], min_word_freq=1
    )
    decoder = DecoderWithAttention(
        sizes["A"], sizes["E"], sizes["H"], sizes["V"], encoder_dim=sizes["D"]
    )
    grid = torch.randn(B, sizes["P"], sizes["D"])
    lengths = torch.randint(2, 10, (B * n,))
    lengths[4] = sizes["max_length"]
    output = decoder(grid, torch.randint(sizes["V"], (B * n, T)), lengths)
    caption_loss(output)
    state = decoder.begin(grid)
    hard = HardAttention(decoder.attention)
    hard(state.hidden, state.keys, state.values)
    drawn = torch.stack([output.alphas, output.alphas > 0.05], dim=2)
    hard_loss(output._replace(alphas=drawn))
    decoder.eval()
    beam_search(
        decoder, grid, vocabulary, SearchConfig(beam_size=2, max_words=6)
    )
    vectors = folder / "vectors.txt"
    vectors.write_text(
        "".join(f"word{i}{' 0.5' * sizes['E']}\n" for i in range(5))
    )
    read_glove(vectors, vocabulary.word_map)

    scenes = write_scenes(folder / "scenes", train=3, val=1, test=1, seed=0)
    pictures = folder / "scenes" / "images"
    prepare(
        scenes,
        pictures,
        folder / "data",
        DataConfig(min_word_freq=1, max_len=27),
    )
    watch.sizes = {}
    encoder = Encoder("tf_efficientnet_lite0", grid_size=7)
    watch.sizes = {"D": encoder.encoder_dim, "P": 49, "I": 3, "n": 5, "T": 29}
    encoder(torch.randn(2, 3, 64, 160))
    pixels = image_file(folder / "data", "TRAIN")
    grids = cache_features(
        encoder, pixels, folder / "grids.hdf5", progress=False
    )
    data = FeatureDataset(folder / "data", "TRAIN", grids)
    with decoding_pool(1, 2, 3):
        pass  # what is commented runs as it opens

    config = ModelConfig(
        attention_dim=19, embed_dim=7, decoder_dim=17, grid_size=7
    )
    model = HalfEncoded(config, data.vocabulary, encoder)
    watch.sizes |= {"A": 19, "E": 7, "H": 17, "V": len(data.vocabulary)}
    channels = stages(encoder)[-1][0].in_channels  # what the last stage takes
    model.last = 1
    model.encode(torch.randn(2, 25, channels))
    model.last = 0
    del watch.sizes["T"]  # captions of its own, of any length
    objective = SelfCritical(data.captions, data.lengths, data.vocabulary)
    features = torch.as_tensor(grids[:2])
    captions = data.captions[:2].flatten(0, 1)
    lengths = data.lengths[:2].flatten()
    objective(model, features, captions, lengths, EngineConfig())

    watch.sizes = {letter: watch.sizes[letter] for letter in "DPAEHV"}
    photograph = next(pictures.glob("*test*"))
    caption = Captioner(model).caption(photograph)
    show_attention(photograph, caption, to=folder / "look.png")
    sheet = read_json(folder / "scenes" / "objects_scenes.json")
    things = [sheet[path.name] for path in sorted(pictures.iterdir())]
    told = [[thing["words"][0] for thing in each] for each in things]
    images = torch.randint(256, (len(told), 3, 64, 64), dtype=torch.uint8)
    grounding(model, images, told, things)
    cells, states = torch.rand(2, 49, 1280), torch.rand(6, 17)
    for attention in (EvenAttention(), DotAttention(1280, 17, 19)):
        attention(states, attention.keys(cells), cells)
    OpenGate(1280)(states)
    nearest_images(cells, cells, 1)
    word_vectors(told, model.vocabulary, 4)
    for kind in (TransformerDecoder, PrefixDecoder):
        decoder = kind(len(data.vocabulary), encoder.encoder_dim)
        decoder(features.float(), captions, lengths)


def check(package: Path = PACKAGE) -> tuple[list[str], str]:
    """Problems, one line each, and the count in words."""
    found = [
        comment
        for path in sorted(package.glob("*.py"))
        for comment in comments(path)
    ]
    watch = Watch(found)
    with tempfile.TemporaryDirectory() as folder, watch.on():
        tour(watch, Path(folder))
    missed = [
        f"{comment}: was never run; let tour in tools/shapes.py do so"
        for comment in found
        if comment not in watch.checked
    ]
    times = watch.checked.total()
    said = f"Shape comments: {len(watch.checked)} of {len(found)} checked, {times} times."
    return [*watch.problems, *missed], said


def main() -> int:
    problems, said = check()
    print("\n".join([*problems, said]))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
