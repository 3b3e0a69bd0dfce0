"""Pictures of digits as people make them, and what the networks get to see."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.errors import InputError
from harness.workflows.digit_images import SIDE, read_digit

Save = Callable[..., Path]


def seven(side: int = 300, thickness: int = 24) -> Image.Image:
    """A seven, white on black, in the upper left part of a larger picture."""
    canvas = np.zeros((side, side + 100), np.uint8)
    canvas[40 : 40 + thickness, 30:150] = 255
    for row in range(40, 200):
        left = 150 - thickness - (row - 40) // 2
        canvas[row, left : left + thickness] = 255
    return Image.fromarray(canvas)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def to_file(image: Image.Image, name: str = "digit.png") -> Path:
        image.save(tmp_path / name)
        return tmp_path / name

    return to_file


def inverted(image: Image.Image) -> Image.Image:
    return Image.fromarray(255 - np.asarray(image))


def transparent(ink: int) -> Image.Image:
    """The digit alone, all around it nothing, of which the colour is the ink's."""
    cover = np.asarray(seven())
    return Image.fromarray(np.stack([np.full_like(cover, ink)] * 3 + [cover], axis=-1))


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.asarray(seven()).astype(np.uint16) * 257)


PICTURES = {
    "dark on light": lambda: inverted(seven()),
    "one bit": lambda: seven().convert("1"),
    "palette": lambda: seven().convert("RGB").convert("P"),
    "colours": lambda: seven().convert("RGB"),
    "grey with alpha": lambda: seven().convert("LA"),
    "black on nothing": lambda: transparent(0),
    "white on nothing": lambda: transparent(255),
    "16 bits": sixteen_bits,
    "pale": lambda: Image.fromarray((200 - np.asarray(seven()) * 0.3).astype(np.uint8)),
    "elsewhere in the picture": lambda: Image.fromarray(np.pad(np.asarray(seven()), ((5, 80), (90, 3)))),
    "twice as large": lambda: seven().resize((800, 600), Image.Resampling.NEAREST),
    "huge": lambda: seven().resize((4000, 3000), Image.Resampling.NEAREST),
}


@pytest.mark.parametrize("picture", PICTURES)
def test_the_same_digit_is_seen_in_any_picture(save: Save, picture: str) -> None:
    expected = read_digit(save(seven(), "plain.png"))
    assert read_digit(save(PICTURES[picture]())) == pytest.approx(expected, abs=0.1 if picture == "huge" else 0.05)


def test_a_digit_fills_the_box_and_is_centred_by_its_mass(save: Save) -> None:
    digit = read_digit(save(seven()))
    assert (digit.shape, digit.dtype, digit.max()) == ((SIDE, SIDE), np.float32, 1.0)
    rows, columns = (np.flatnonzero(digit.max(axis) > 0.2) for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    for axis in (0, 1):
        mass = digit.sum(axis)
        assert abs((np.arange(SIDE) * mass).sum() / mass.sum() - 14) <= 0.5


def test_for_the_digits_of_8_by_8_a_digit_fills_the_cells_and_is_centred_by_its_width(save: Save) -> None:
    digit = read_digit(save(seven()), "digits")
    assert (digit.shape, digit.dtype, digit.max()) == ((SIDE, SIDE), np.float32, 1.0)
    cells = digit[2:26:3, 2:26:3]
    assert (digit[2:26, 2:26] == cells.repeat(3, 0).repeat(3, 1)).all()
    assert np.count_nonzero(digit) == np.count_nonzero(digit[2:26, 2:26])
    rows, columns = (np.flatnonzero(cells.max(axis) > 0) for axis in (1, 0))
    assert np.ptp(rows) + 1 == 8
    assert abs(columns[0] - (7 - columns[-1])) <= 1


def test_a_thin_line_is_as_strong_as_a_thick_one(save: Save) -> None:
    assert read_digit(save(seven(thickness=2))).max() == 1.0


def test_what_has_28_by_28_pixels_is_taken_as_it_is(save: Save) -> None:
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[2:9, 3:6] = 128
    assert (read_digit(save(Image.fromarray(pixels))) == pixels.astype(np.float32) / 255).all()
    assert read_digit(save(inverted(Image.fromarray(pixels)))) == pytest.approx(pixels / 255, abs=1e-6)


# What cannot be read


def png(width: int, height: int) -> bytes:
    """A file that says it has this many pixels, and has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    stream = io.BytesIO()
    seven().save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no PNG picture; allowed: PNG files"),
        (b"no picture", "is no PNG picture; allowed: PNG files"),
        (jpeg(), "is no PNG picture; allowed: PNG files"),
        (png(6000, 6000), "is too large; allowed: at most 33 million pixels"),
        (png(12_000, 12_000), "is too large; allowed: at most 33 million pixels"),
        (png(60_000, 60_000), "is too large; allowed: at most 33 million pixels"),
        (png(30, 30), "cannot be read: "),
    ],
    ids=["empty", "text", "JPEG", "too large", "larger", "a bomb", "without pixels"],
)
def test_what_is_no_picture_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "digit.png"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_digit(path)
    assert str(refused.value).startswith(f"{path} {message}")
    assert "\n" not in str(refused.value)


def test_what_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nope\.png cannot be read: No such file or directory$"):
        read_digit(tmp_path / "nope.png")
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe, Path("/dev/null")):
        with pytest.raises(InputError, match=r"cannot be read: not a plain file$"):
            read_digit(path)


@pytest.mark.parametrize("side", [28, 100])
@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_picture_of_nothing_is_refused(save: Save, side: int, shade: int) -> None:
    with pytest.raises(InputError, match=r"shows nothing: all of it is one shade; allowed: a digit$"):
        read_digit(save(Image.new("L", (side, side), shade)))


def test_a_damaged_picture_is_read_or_refused(save: Save) -> None:
    path, rng = save(seven()), random.Random(0)
    sound = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(sound)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(8, len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.randrange(60, len(damaged) + 1)] if rng.random() < 0.3 else damaged)
        try:
            assert np.isfinite(read_digit(path)).all()
        except InputError as refused:
            assert "\n" not in str(refused)
