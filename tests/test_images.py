import io
import multiprocessing
import os
import struct
import subprocess
import sys
import textwrap
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from trees import paint

from captionlib.io.files import InputError
from captionlib.io.images import (
    IMAGE_SIZE,
    decoding_pool,
    open_rgb,
    read_image,
    try_images,
)


@pytest.fixture
def picture():
    """A smooth RGB picture, wider than high, of which no half equals the other."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return coarse.resize((320, 200), Image.Resampling.BICUBIC)


def close(a, b, tolerance):
    return (
        np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max()
        <= tolerance
    )


def test_an_image_becomes_uint8_channels_first(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert (
        pixels.shape == (3, IMAGE_SIZE, IMAGE_SIZE) and pixels.dtype == np.uint8
    )
    assert pixels.flags.c_contiguous
    shrunk = picture.resize((256, 256), Image.Resampling.BICUBIC)
    assert (pixels == np.asarray(shrunk).transpose(2, 0, 1)).all()


def test_shrinking_averages():
    board = (
        np.indices((1024, 1024)).sum(0) % 2 * np.uint8(255)
    )  # one-pixel checks: aliasing's feast
    inside = read_image(board.astype(np.uint8))[:, 2:-2, 2:-2]
    assert 126 <= inside.min() and inside.max() <= 129


def test_report_101_110_157_every_road_gives_the_same_pixels(picture, tmp_path):
    path = tmp_path / "a.png"
    picture.save(path)
    expected = read_image(str(path))
    array = np.asarray(picture)
    for source in (
        path,
        io.BytesIO(path.read_bytes()),
        picture,
        Image.open(path),
        array,
        array.transpose(2, 0, 1),
        array / np.float32(255),
        array.astype(np.uint16) * 257,
        expected,  # already read: reading again changes nothing
    ):
        pixels = read_image(source)
        assert pixels.dtype == np.uint8 and (pixels == expected).all()
    assert expected.max() > 128  # not scaled to [0, 1] by anyone


MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
]
MODES += ["LAB", "I", "F", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_report_23_179_every_mode_becomes_rgb(picture, mode):
    grey = mode[0] in "1LIF" and mode != "LAB"
    expected = picture.convert("L").convert("RGB") if grey else picture
    if mode in ("I", "I;16"):
        deep = np.asarray(picture.convert("L")).astype(np.int32) * 257
        image = Image.fromarray(
            deep.astype(np.uint16) if mode == "I;16" else deep
        )
    elif mode == "LAB":
        from PIL import ImageCms

        srgb, lab = (
            ImageCms.createProfile("sRGB"),
            ImageCms.createProfile("LAB"),
        )
        image = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
    elif mode == "La":
        image = picture.convert("LA").convert("La")
    elif mode == "RGBa":
        image = picture.convert("RGBA").convert("RGBa")
    elif mode == "PA":
        image = picture.convert("P").convert("PA")
    elif mode == "1":
        image = picture.convert("1")
        expected = image.convert("RGB")
    else:
        image = picture.convert(mode)
    assert image.mode == mode
    tolerance = {"P": 60, "PA": 60, "YCbCr": 4, "HSV": 8, "LAB": 40}.get(
        mode, 1
    )
    rgb = open_rgb(image)
    assert rgb.mode == "RGB" and close(rgb, expected, tolerance)


@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "bmp", "gif", "tiff", "webp", "ppm", "tga", "jp2"]
)
def test_report_23_179_every_common_format_is_read(picture, tmp_path, suffix):
    picture.save(tmp_path / f"a.{suffix}")
    assert close(
        open_rgb(tmp_path / f"a.{suffix}"),
        picture,
        70 if suffix == "gif" else 40,
    )


def test_report_23_179_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for name in ("a.png", "a.tiff", "a.pgm"):
        deep = (
            ramp.astype(np.int32) if name == "a.pgm" else ramp
        )  # what old Pillows can save
        Image.fromarray(deep).save(tmp_path / name)
        assert close(read_image(tmp_path / name)[0], ramp / 257, 1)
    dark = Image.fromarray(
        np.full((8, 8), 255, np.uint16)
    )  # 255 of 65,535: nearly black
    assert read_image(dark).max() <= 1
    assert (
        read_image(Image.fromarray(np.full((8, 8), 0.5, np.float32))).max()
        == 128
    )


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "PA"])
def test_report_23_179_transparency_lies_over_white(mode, tmp_path):
    image = Image.new(
        "RGBA", (40, 40), (255, 0, 0, 0)
    )  # red, if one forgets the alpha
    image.paste((0, 0, 0, 255), (0, 0, 20, 40))
    if mode in ("P", "PA"):
        image = image.quantize(4).convert(mode)
    image.convert(mode).save(tmp_path / ("a.tiff" if mode == "PA" else "a.png"))
    rgb = np.asarray(open_rgb(next(tmp_path.iterdir())))
    assert (rgb[:, :20] == 0).all() and (rgb[:, 20:] == 255).all()


def test_report_23_179_half_transparent_is_half_white():
    rgb = np.asarray(open_rgb(Image.new("RGBA", (4, 4), (0, 0, 0, 128))))
    assert (rgb == 127).all()


def test_report_23_179_a_transparent_palette_entry(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(0, (0, 0, 4, 8))
    for name in ("a.gif", "a.png"):
        image.save(tmp_path / name, transparency=1)
        rgb = np.asarray(open_rgb(tmp_path / name))
        assert (rgb[:, :4] == 0).all() and (rgb[:, 4:] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
def test_report_23_179_exif_orientation_is_applied(
    picture, tmp_path, orientation, suffix
):
    undo = {
        2: 0,
        3: 3,
        4: 1,
        5: 5,
        6: 2,
        7: 6,
        8: 4,
    }  # Image.Transpose that a camera would do
    lying = picture.transpose(undo[orientation]) if orientation > 1 else picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying.save(tmp_path / f"a.{suffix}", exif=exif, quality=95)
    assert close(open_rgb(tmp_path / f"a.{suffix}"), picture, 40)


def test_report_23_179_broken_exif_does_not_spoil_a_picture(picture, tmp_path):
    picture.save(
        tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95
    )
    assert close(open_rgb(tmp_path / "a.jpg"), picture, 40)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_report_23_179_an_animation_gives_its_first_frame(tmp_path, suffix):
    frames = [
        Image.new("RGB", (30, 20), colour) for colour in ("red", "lime", "blue")
    ]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert Image.open(path).n_frames == 3
    assert (np.asarray(open_rgb(path)) == (255, 0, 0)).all()


def bad_files(folder, picture):
    """name: (what the error must say)"""
    good = io.BytesIO()
    picture.save(good, "JPEG")
    (folder / "truncated.jpg").write_bytes(
        good.getvalue()[: len(good.getvalue()) // 2]
    )
    good = io.BytesIO()
    picture.save(good, "PNG")
    (folder / "truncated.png").write_bytes(good.getvalue()[:-500])
    (folder / "text.jpg").write_text("not an image\n")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "folder.jpg").mkdir()
    huge = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    (folder / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data))
            + kind
            + data
            + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in (
                (b"IHDR", huge),
                (b"IDAT", zlib.compress(bytes(9))),
                (b"IEND", b""),
            )
        )
    )
    picture.save(folder / "drawing.eps")
    return {
        "truncated.jpg": "is damaged",
        "truncated.png": "is damaged",
        "text.jpg": "is not an image",
        "empty.jpg": "is not an image",
        "folder.jpg": "is a folder",
        "missing.jpg": "no such file",
        "bomb.png": "more than 178,956,970 pixels",
        "drawing.eps": "is an EPS drawing",
    }


def test_a_bad_file_is_one_line_that_names_it(picture, tmp_path, recwarn):
    cases = bad_files(tmp_path, picture)
    for name, complaint in cases.items():
        with pytest.raises(InputError) as caught:
            read_image(tmp_path / name)
        message = str(caught.value)
        assert (
            message.startswith(str(tmp_path / name)) and complaint in message
        ), message
        assert ";" in message and "\n" not in message  # the cure follows
    answers = list(try_images([tmp_path / name for name in cases]))
    assert all(isinstance(answer, InputError) for answer in answers) and len(
        answers
    ) == len(cases)
    assert not recwarn.list


@pytest.mark.skipif(
    not hasattr(os, "mkfifo"), reason="no pipes in this file system"
)
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="is not a file"):
        read_image(tmp_path / "pipe.jpg")


def test_damage_anywhere_never_leaves_as_another_error(picture, tmp_path):
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "gif", "tiff", "webp", "bmp", "tga", "ppm"):
        path = tmp_path / f"a.{suffix}"
        picture.save(path)
        good = path.read_bytes()
        for _ in range(12):
            data = bytearray(good)
            for place in rng.integers(0, min(len(data), 600), 12):
                data[place] = rng.integers(256)
            path.write_bytes(bytes(data[: rng.integers(1, len(data) + 1)]))
            (answer,) = try_images([path])
            assert isinstance(answer, InputError) or answer.shape == (
                3,
                256,
                256,
            )


@pytest.mark.parametrize(
    "array, complaint",
    [
        (np.zeros((4, 4), np.int64), "holds int64"),
        (np.full((4, 4, 3), 200.0), "outside"),
        (np.full((4, 4, 3), np.nan), "outside"),
        (np.zeros((5, 5, 2), np.uint8), "has shape"),
        (np.zeros((2, 3, 4, 4), np.uint8), "has shape"),
        (np.zeros(7, np.uint8), "has shape"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        ("no such.jpg", "no such file"),
        (None, "has shape"),
    ],
)
def test_a_bad_array_is_refused(array, complaint):
    with pytest.raises(InputError, match=complaint):
        read_image(array)
    if not isinstance(array, str):
        with pytest.raises(InputError, match="^frame 7: "):
            read_image(array, name="frame 7")


def test_a_pool_answers_in_its_own_processes(tmp_path):
    paths = [paint(tmp_path / f"{i}.png", i) for i in range(4)]
    with decoding_pool(2, 4, 3) as submit:
        answers = [
            submit(paths[:2]),
            submit([*paths[2:], tmp_path / "missing.png"]),
        ]
        decoded = [image for answer in answers for image in answer.result()]
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []
    assert isinstance(decoded.pop(), InputError)
    expected = [read_image(path) for path in paths]
    assert all((a == b).all() for a, b in zip(decoded, expected, strict=True))


def test_a_pool_starts_without_torch(tmp_path):
    code = "import captionlib.io.images, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="looks processes up in /proc"
)
def test_decoding_processes_end_with_a_killed_parent(tmp_path):
    code = """
    import multiprocessing, time
    from captionlib.io.images import decoding_pool
    with decoding_pool(2, 4, 3) as submit:
        for answer in [submit(["none.jpg"]) for _ in range(4)]:
            answer.result()
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        time.sleep(60)
    """
    script = tmp_path / "unguarded.py"  # with no `if __name__ == "__main__"`
    script.write_text(textwrap.dedent(code))
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True
    )
    children = parent.stdout.readline().split()
    assert children and all(
        os.path.exists(f"/proc/{child}") for child in children
    )
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{child}") for child in children):
        assert time.monotonic() < deadline, (
            "a decoding process outlived its parent"
        )
        time.sleep(0.05)
