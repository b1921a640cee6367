"""Images from untrusted files."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from fastreid.data.data_utils import read_image
from PIL import Image, ImageFile

from unreid.reading.image_file import MAX_PIXELS, check_size, open_image, read_rgb


def png(width: int, height: int) -> bytes:
    """Return a PNG header without the pixel data that the header declares."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(99)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "jpg"),
        ("L", "jpg"),
        ("CMYK", "jpg"),
        ("RGBA", "png"),
        ("P", "png"),
        ("1", "png"),
        ("LA", "png"),
        ("RGB", "webp"),
        ("RGBA", "webp"),
        ("RGB", "bmp"),
        ("P", "gif"),
    ],
)
@pytest.mark.parametrize("orientation", [None, 3, 6])
def test_pixels__are_those_of_fastreids_reader(
    mode: str, suffix: str, orientation: int | None, tmp_path: Path, rng: np.random.Generator
) -> None:
    image = Image.fromarray(rng.integers(0, 256, (9, 5, 3), dtype=np.uint8)).convert(mode)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    image.save(path, **({"exif": exif} if suffix in ("jpg", "png", "webp") else {}))
    ours = read_rgb(path)
    assert ours.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(read_image(str(path), "RGB")))


def test_bomb__is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(png(8000, 8000))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=rf"8000 x 8000 pixels, and at most {MAX_PIXELS}"):
        read_rgb(tmp_path / "a.png")


def test_limit__is_inclusive() -> None:
    check_size(2**13, 2**12)
    with pytest.raises(ValueError, match="at most"):
        check_size(2**13, 2**12 + 1)


def test_other_formats__are_not_decoded_whatever_their_name(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "TIFF")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(pwned) (w) file\n"
    for name, content in (("a.jpg", stream.getvalue()), ("b.jpg", postscript)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OSError, match=f"cannot identify image file .*{name}"):
            read_rgb(tmp_path / name)


def test_pipe_and_folder__are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "folder.jpg"):
        with pytest.raises(OSError, match="no regular file"):
            open_image(tmp_path / name)


def test_image_cut_off__is_an_error_and_no_grey_one(tmp_path: Path) -> None:
    for suffix in ("jpg", "png", "bmp", "webp"):
        path = tmp_path / f"a.{suffix}"
        noise = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises((OSError, SyntaxError)):
            read_rgb(path)
