"""The page in a real browser, at the widths of a desk and of a phone; skips where there is none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unreid.visualization.browser import find_browser, look_at
from tests.unreid.visualization.reading import Reading
from unreid.visualization.compare import write_comparison

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium on this machine")


@pytest.fixture
def comparison(trained: Path, tmp_path: Path) -> Path:
    return write_comparison([trained] * 5, tmp_path / "compare.html")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", ["page", "comparison"])
def test_page__fits_loads_and_complains_of_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, width: int, dark: bool
) -> None:
    assert PROGRAM is not None
    page: Path = request.getfixturevalue(kind)
    seen = look_at(PROGRAM, page, width, tmp_path / "profile", dark=dark)
    measures = seen.measures
    assert measures["width"] <= measures["seen"] == width, measures["wide"]
    assert measures["wide"] == []
    assert measures["images"] == Reading(page).tags.count("img") and measures["broken"] == 0
    assert measures["small"] >= 11, "too small to read"
    assert seen.complaints == []
    # From the disk alone: nothing but the page itself and what it carries.
    others = [r for r in seen.requests if not r.startswith("data:")]
    assert others == [page.resolve().as_uri()]
    pixels = np.asarray(Image.open(io.BytesIO(seen.png)).convert("L"))
    assert pixels.shape == (900, width)
    assert (np.median(pixels) < 80) == dark, "the theme is not the reader's"
    assert pixels.std() > 5, "a blank page"
