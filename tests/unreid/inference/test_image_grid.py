"""Image grids: frames, lines, long names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unreid.inference.making import fill
from unreid.data.images import UnreadableImageError
from unreid.inference.image_grid import BLACK, GREEN, GREY, RED, Cell, draw_grid, frame_of


def test_frame_colours__differ_for_correct_wrong_and_unknown(tmp_path: Path) -> None:
    assert [frame_of(x) for x in (True, False, None)] == [GREEN, RED, GREY]
    (path,) = fill(tmp_path, ["a.png"])
    cells = [Cell(str(path), ("1: 0.90", "cam 2"), frame) for frame in (BLACK, GREEN, RED, GREY)]
    pixels = np.asarray(draw_grid("title", cells, columns=4)).reshape(-1, 3)
    for colour in (BLACK, GREEN, RED, GREY):
        assert (pixels == colour).all(axis=1).sum() > 4 * (64 + 128), f"no frame of {colour}"


def test_grid__grows_by_rows_and_is_never_narrower_than_its_title(tmp_path: Path) -> None:
    (path,) = fill(tmp_path, ["a.png"])
    one = draw_grid("x" * 500, [Cell(str(path))], columns=10)
    many = draw_grid("x", [Cell(str(path))] * 11, columns=10)
    assert one.width == 420 and many.width > 700 and many.height > 1.5 * one.height


def test_image_of_any_shape_and_name_in_any_script__are_drawn(tmp_path: Path) -> None:
    Image.new("L", (300, 2)).save(tmp_path / "wide.png")
    sheet = draw_grid(
        "камера 摄像头 \N{GRINNING FACE}",
        [Cell(str(tmp_path / "wide.png"), ("cam " + "длинное имя " * 9, ""))],
        columns=3,
    )
    assert sheet.size[0] == 420


def test_no_image_and_an_unreadable_image__are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        draw_grid("t", [], columns=2)
    (tmp_path / "bad.jpg").write_text("no")
    with pytest.raises(UnreadableImageError, match=r"bad\.jpg"):
        draw_grid("t", [Cell(str(tmp_path / "bad.jpg"))], columns=2)
