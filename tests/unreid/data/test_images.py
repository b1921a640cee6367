"""Reading images, and errors that name an unreadable file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unreid.data.images import UnreadableImageError, find_unreadable, load_image


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    pixels = rng.integers(0, 255, (64, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "good.jpg")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.jpg")
    whole = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_bytes(b"no image at all")
    return tmp_path


def test_grey_image__becomes_rgb(folder: Path) -> None:
    assert load_image(str(folder / "grey.jpg")).mode == "RGB"


@pytest.mark.parametrize("name", ["cut.jpg", "empty.jpg", "text.jpg", "missing.jpg"])
def test_unreadable_image__is_an_error_with_the_options(folder: Path, name: str) -> None:
    with pytest.raises(UnreadableImageError) as error:
        load_image(str(folder / name))
    message = str(error.value)
    assert message.startswith(f"{folder / name} cannot be read as an image (")
    assert "set UNSUP.BAD_IMAGE skip" in message
    assert isinstance(error.value, ValueError)


def test_find_unreadable__finds_exactly_the_damaged_files(folder: Path) -> None:
    names = ["good.jpg", "cut.jpg", "grey.jpg", "empty.jpg", "text.jpg", "missing.jpg"]
    bad = find_unreadable([str(folder / n) for n in names])
    assert [Path(p).name for p in bad] == ["cut.jpg", "empty.jpg", "text.jpg", "missing.jpg"]
    assert "truncated" in bad[str(folder / "cut.jpg")]
