"""Decoding JPEGs with simplejpeg: the same pixels, and errors for the same files, as Pillow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unreid.data import images as module
from unreid.data.images import UnreadableImageError, decode, load_image, plain_jpeg


@pytest.fixture(params=["simplejpeg", "Pillow"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Pillow":
        monkeypatch.setattr(module, "jpeg_decoder", lambda: None)
    elif module.jpeg_decoder() is None:
        pytest.skip("simplejpeg is not installed")


@pytest.fixture
def image(rng: np.random.Generator) -> Image.Image:
    """Return a smooth image, which shows differences in rounding and upsampling."""
    small = rng.integers(0, 255, (9, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((41, 83), Image.Resampling.BICUBIC)


def saved(image: Image.Image, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, settings.pop("format", "JPEG"), **settings)
    return buffer.getvalue()


def rotated(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(image, exif=exif)


PLAIN = {
    "4:2:0": lambda p: saved(p, subsampling=2),
    "4:2:2": lambda p: saved(p, subsampling=1),
    "4:4:4": lambda p: saved(p, subsampling=0, quality=95),
    "progressive": lambda p: saved(p, progressive=True),
    "grey": lambda p: saved(p.convert("L")),
    "restart markers": lambda p: saved(p, restart_marker_blocks=2),
}
OTHERS = {
    "EXIF rotation": rotated,
    "CMYK": lambda p: saved(p.convert("CMYK")),
    "PNG": lambda p: saved(p, format="PNG"),
    "PNG with alpha": lambda p: saved(p.convert("RGBA"), format="PNG"),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_jpeg__is_recognised_by_its_segments(kind: str, image: Image.Image) -> None:
    assert plain_jpeg(PLAIN[kind](image)) == (83, 41)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files__are_decoded_by_pillow(kind: str, image: Image.Image) -> None:
    assert plain_jpeg(OTHERS[kind](image)) is None


@pytest.mark.parametrize("kind", [*PLAIN, *OTHERS])
def test_decode__gives_the_pixels_of_pillow(
    kind: str, image: Image.Image, tmp_path: Path, decoder: None
) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes({**PLAIN, **OTHERS}[kind](image))
    np.testing.assert_array_equal(decode(str(path)), np.asarray(load_image(str(path))))


def test_damaged_files__are_errors_if_and_only_if_pillow_fails(
    image: Image.Image, tmp_path: Path, decoder: None, rng: np.random.Generator
) -> None:
    whole = saved(image)
    path = tmp_path / "image.jpg"
    failed = 0
    for attempt in range(120):
        data = bytearray(whole)
        if attempt % 2:
            data = data[: rng.integers(0, len(data))]
        else:
            for place in rng.integers(0, len(data), 3):
                data[place] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            wanted = np.asarray(load_image(str(path)))
        except UnreadableImageError:
            wanted = None
        try:
            found = decode(str(path))
        except UnreadableImageError as error:
            assert str(error).startswith(f"{path} cannot be read as an image")
            failed += 1
            assert wanted is None
            continue
        assert wanted is not None
        np.testing.assert_array_equal(found, wanted)
    assert 20 < failed < 120


def test_header_of_too_many_pixels__is_not_decoded(
    image: Image.Image, tmp_path: Path, decoder: None
) -> None:
    data = bytearray(saved(image))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = bytes((23, 112, 23, 112))  # 6000 x 6000
    assert plain_jpeg(bytes(data)) is None
    path = tmp_path / "bomb.jpg"
    path.write_bytes(bytes(data))
    with pytest.raises(UnreadableImageError, match="6000 x 6000 pixels"):
        decode(str(path))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0",
        b"\xff\xd8\xff\xc0\x00\x11\x08",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_plain_jpeg__of_a_truncated_header_is_none(data: bytes) -> None:
    assert plain_jpeg(data) is None
