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
from PIL import Image, ImageCms, features
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


def test_a_picture_is_read_up_to_the_limit_that_errors_state(tmp_path):
    # Above the limit where Pillow warns, below the one where it stops.
    Image.new("1", (10_000, 9_000), 1).save(tmp_path / "large.png")
    with pytest.warns(Image.DecompressionBombWarning):
        assert open_rgb(tmp_path / "large.png").size == (10_000, 9_000)


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


def ftyp(*brands):
    """The first box of an MP4-like file."""
    body = brands[0] + bytes(4) + b"".join(brands)
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + bytes(99)


STRANGERS = {
    "heic.jpg": (ftyp(b"heic", b"mif1"), "HEIF.*save it as JPEG"),
    "heif.jpg": (ftyp(b"mif1", b"heic"), "HEIF.*save it as JPEG"),
    "clip.jpg": (ftyp(b"isom", b"mp41"), "a video.*ffmpeg"),
    "phone.jpeg": (ftyp(b"qt  "), "a video.*ffmpeg"),
    "clip.webp": (b"\x1aE\xdf\xa3" + bytes(99), "a video.*ffmpeg"),
    "old.png": (b"\0\0\1\xb3" + bytes(range(99)), "a video.*ffmpeg"),
    "riff.png": (b"RIFF\x80\0\0\0AVI LIST" + bytes(99), "a video.*ffmpeg"),
    "raw.jpg": (ftyp(b"crx ", b"isom"), "raw file.*save it as JPEG"),
    "page.png": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "a PDF.*save its page as PNG"),
    "drawing.png": (
        b'<?xml version="1.0"?>\n<!-- made -->\n<svg width="9"/>',
        "an SVG drawing.*save it as PNG",
    ),
    "wmf.png": (b"\xd7\xcd\xc6\x9a" + bytes(90), "WMF|damaged"),
    "error.jpg": (b"<!DOCTYPE html><p>404", "a web page.*own address"),
    "lfs.jpg": (
        b"version https://git-lfs.github.com/spec/v1\n",
        "git lfs pull",
    ),
    "note.jpg": ("eine Zeile: süß\n".encode(), "but text"),
    "utf16.jpg": ("a line\n".encode("utf-16"), "but text"),
    "empty.jpg": (b"", "an empty file"),
    "zipped.jpg": (b"PK\3\4" + bytes(99), "an archive.*unpack"),
    "array.png": (b"\x93NUMPY\1\0", "a NumPy array"),
    "noise.jpg": (bytes(range(200, 99, -1)) + bytes(9), "that Pillow can read"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_report_sigal_436_other_files_say_how_to_convert_them(name, tmp_path):
    data, complaint = STRANGERS[name]
    (tmp_path / name).write_bytes(data)
    for source in (tmp_path / name, io.BytesIO(data)):
        with pytest.raises(InputError, match=complaint) as caught:
            read_image(source)
        assert "; " in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow before 11.3")
def test_report_sigal_436_avif_is_read(picture, tmp_path):
    picture.save(tmp_path / "a.jpg", "AVIF", quality=95)
    assert close(open_rgb(tmp_path / "a.jpg"), picture, 60)
    half = (tmp_path / "a.jpg").read_bytes()[:99]
    with pytest.raises(InputError, match="is damaged"):
        read_image(io.BytesIO(half))


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/dog.jpg",
        "HTTP://example.org",
        "s3://bucket/dog.jpg",
        "file:///home/dog.jpg",
        "data:image/png;base64," + "iVBORw0KGgo" * 99,
    ],
)
def test_report_captionbot_5_an_address_is_not_a_file(address):
    with pytest.raises(InputError, match="is an address.*; fetch it") as caught:
        read_image(address)
    assert len(str(caught.value)) < 300


def gamma_profile(space, gamma, primaries=None):
    """An ICC profile of version 2: sRGB's primaries, unless others are given."""

    def s15(*values):
        return b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    curve = b"curv" + bytes(4) + struct.pack(">IHxx", 1, round(gamma * 256))
    white = b"XYZ " + bytes(4) + s15(0.9642, 1.0, 0.8249)
    tags = {b"wtpt": white}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        columns = primaries or (
            (0.4361, 0.2225, 0.0139),
            (0.3851, 0.7169, 0.0971),
            (0.1431, 0.0606, 0.7139),
        )
        for letter, column in zip(b"rgb", columns, strict=True):
            tags[bytes([letter]) + b"TRC"] = curve
            tags[bytes([letter]) + b"XYZ"] = b"XYZ " + bytes(4) + s15(*column)
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value
    head = bytes(4) + struct.pack(">I", 0x02400000) + b"mntr" + space + b"XYZ "
    head += bytes(12) + b"acsp" + bytes(28) + s15(0.9642, 1.0, 0.8249)
    head = head.ljust(124, b"\0")
    body = head + struct.pack(">I", len(tags)) + table + data
    return struct.pack(">I", 4 + len(body)) + body


WIDE = ((0.7977, 0.288, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))
PROPHOTO = gamma_profile(b"RGB ", 1.8, WIDE)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "webp"])
def test_report_pillow_2907_a_profile_becomes_srgb(picture, tmp_path, suffix):
    own = ImageCms.ImageCmsProfile(io.BytesIO(PROPHOTO))
    srgb = ImageCms.createProfile("sRGB")
    # The same colours in ProPhoto's numbers, as a camera would store them.
    muted = Image.eval(picture, lambda v: 64 + v // 2)
    stored = ImageCms.profileToProfile(muted, srgb, own)
    lossless = {"lossless": True} if suffix == "webp" else {"quality": 95}
    path = tmp_path / f"a.{suffix}"
    stored.save(path, icc_profile=PROPHOTO, **lossless)
    assert not close(stored, muted, 15)
    assert close(open_rgb(path), muted, 60 if suffix == "jpg" else 4)
    mean = np.asarray(open_rgb(path)).mean((0, 1)) - np.asarray(muted).mean(
        (0, 1)
    )
    assert np.abs(mean).max() < 1
    # Once only: what was read is sRGB, and so is each road's result.
    once = open_rgb(path)
    assert close(open_rgb(once), once, 0)
    assert (read_image(Image.open(path)) == read_image(path)).all()


def test_report_pillow_2907_an_srgb_profile_changes_no_bit(picture, tmp_path):
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (made, b"broken" * 40, made[:200], PROPHOTO[:150]):
        picture.save(tmp_path / "a.png", icc_profile=profile)
        assert close(open_rgb(tmp_path / "a.png"), picture, 0)
    picture.save(tmp_path / "a.png", icc_profile=gamma_profile(b"GRAY", 1.0))
    assert close(open_rgb(tmp_path / "a.png"), picture, 0)  # of other colours


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "P", "RGBA"])
def test_report_pillow_2907_profiles_in_other_modes(picture, tmp_path, mode):
    grey = mode in ("L", "LA", "I;16")
    profile = gamma_profile(b"GRAY" if grey else b"RGB ", 1.0)
    if mode == "I;16":
        light = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        image = Image.fromarray(light)
    else:
        image = picture.convert(mode)
    image.save(tmp_path / "a.png", icc_profile=profile)
    light = np.asarray(open_rgb(image)) / 255  # linear light, read as if sRGB
    curve = np.where(
        light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
    )
    assert close(open_rgb(tmp_path / "a.png"), np.rint(255 * curve), 2)


def test_report_pillow_2907_transparency_stays_over_white(tmp_path):
    image = Image.new("RGBA", (40, 40), (90, 120, 60, 0))
    image.paste((90, 120, 60, 255), (0, 0, 20, 40))
    image.save(tmp_path / "a.png", icc_profile=gamma_profile(b"RGB ", 1.0))
    rgb = np.asarray(open_rgb(tmp_path / "a.png"))
    assert (rgb[:, 20:] == 255).all() and rgb[0, 0, 0] > 150


def test_a_turned_picture_is_not_turned_again(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    once = open_rgb(tmp_path / "a.jpg")
    assert open_rgb(once).size == once.size == (200, 320)
