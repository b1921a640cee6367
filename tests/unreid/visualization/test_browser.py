"""Tests of the report in a browser at desktop and phone width; skipped without a browser."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unreid.visualization.browser import find_browser, look_at, opened
from tests.unreid.visualization.conftest import WriteRun
from tests.unreid.visualization.reading import Reading
from unreid.reading.epochs_file import EpochRecord
from unreid.visualization.compare import write_comparison
from unreid.visualization.page import write_report

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
    # The page is loaded from disk and requests no other file.
    others = [r for r in seen.requests if not r.startswith("data:")]
    assert others == [page.resolve().as_uri()]
    pixels = np.asarray(Image.open(io.BytesIO(seen.png)).convert("L"))
    assert pixels.shape == (900, width)
    assert (np.median(pixels) < 80) == dark, "the theme is not the reader's"
    assert pixels.std() > 5, "a blank page"


def test_chart__shows_values_under_the_mouse_and_zooms_by_dragging(
    write_run: WriteRun, tmp_path: Path
) -> None:
    assert PROGRAM is not None
    records = [EpochRecord(e, labels={"clusters": 10 + e, "images": 50}) for e in range(11)]
    page = write_report(write_run(epochs=records))
    with opened(PROGRAM, page, 1280, tmp_path / "profile") as tab:
        tab.evaluate("""window.canvas = document.querySelector('canvas[aria-label="Clusters"]');
            canvas.scrollIntoView({block: 'center', behavior: 'instant'});
            window.chart = Chart.getChart(canvas); true""")
        place = """(e => { const r = canvas.getBoundingClientRect();
            return [r.left + chart.scales.x.getPixelForValue(e), r.top + r.height / 2]; })"""
        x, y = tab.evaluate(f"{place}(4)")
        tab.mouse("mouseMoved", x, y)
        tab.evaluate("new Promise(done => setTimeout(done, 100))")
        shown = tab.evaluate("chart.tooltip.opacity > 0 && chart.tooltip.body[0].lines[0]")
        assert shown == " clusters: 14"
        end, _ = tab.evaluate(f"{place}(8)")
        tab.mouse("mousePressed", x, y, pressed=True)
        tab.mouse("mouseMoved", (x + end) / 2, y, pressed=True)
        tab.mouse("mouseMoved", end, y, pressed=True)
        tab.mouse("mouseReleased", end, y, pressed=True)
        low, high = tab.evaluate("[chart.scales.x.min, chart.scales.x.max]")
        assert abs(low - 4) < 0.3 and abs(high - 8) < 0.3
        assert tab.evaluate("canvas.closest('figure').querySelector('.reset').hidden") is False
        tab.evaluate("canvas.closest('figure').querySelector('.reset').click()")
        assert tab.evaluate("[chart.scales.x.min, chart.scales.x.max]") == [0, 10]


def test_every_chart__is_drawn_and_a_ninth_line_is_dashed(
    write_run: WriteRun, tmp_path: Path
) -> None:
    assert PROGRAM is not None
    records = [EpochRecord(0, labels={"clusters": 3, "images": 5})]
    folders = [write_run(f"r{i}", epochs=records) for i in range(10)]
    page = write_comparison(folders, tmp_path / "c.html")
    with opened(PROGRAM, page, 1280, tmp_path / "profile") as tab:
        drawn = tab.evaluate("""[...document.querySelectorAll('canvas')].map(
            c => Chart.getChart(c).data.datasets.map(d => d.borderDash.length))""")
    assert drawn == [[0] * 8 + [2] * 2] * len(Reading(page).charts) and drawn
