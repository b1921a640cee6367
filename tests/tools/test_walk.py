"""The walk of a new user, command after command, on a folder with awkward names.

Two stores whose cameras have the same names, half of the images without an id, files that are no
images, names that a spreadsheet would evaluate. The network is a small one that is not trained.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.projects.overrides import ROOT, tiny_options
from tests.projects.tiny_run import BASELINE
from tests.unreid.inference.making import fill, truncate
from unreid import commands
from unreid.data.folder import read_folder

CAMERAS = ["--camera-pattern", r"(?P<camera>store [AB]/cam\d)/", "--id-pattern", "person([0-9]+)"]
#: Beginnings of file names, of images with an id and without one.
NAMED = ["", "=1+1 ", "+", "-x ", "@", "Ünï-", "人 ", "a,b;'c ", "%20", "[x] "]
ANONYMOUS = ["anon", "=anon", "ÄÖ", "x" * 120]


def names() -> list[str]:
    """Paths of 2 stores x 2 cameras x (20 images with an id + 16 without)."""
    found = []
    for store in "AB":
        for camera in (1, 2):
            folder = f"store {store}/cam{camera}"
            for person in range(10):
                for shot in range(2):
                    found.append(f"{folder}/{NAMED[person]}person{person:02d}_{shot}.png")
            for number in range(16):
                suffix = ".JPG" if number % 3 == 0 else ".png"
                found.append(f"{folder}/{ANONYMOUS[number % 4]} {number}{suffix}")
    return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder; ``run`` beside it is written by the first step."""
    folder = tmp_path_factory.mktemp("walk") / "my shop"
    for number, name in enumerate(names()):
        path = folder / name
        (written,) = fill(path.parent, ["new.png"], seed=number)
        if path.suffix == ".JPG":
            Image.open(written).save(written.with_suffix(".jpg"))
            os.remove(written)
            written = written.with_suffix(".jpg")
        os.rename(written, path)
    (folder / "store A" / "notes.txt").write_text("closed on Sundays")
    (folder / "store B" / "logo.gif").write_bytes(b"GIF89a")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread; a second one only waits for a network of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_walk(
    shop: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def call(*arguments: object, code: int = 0) -> tuple[str, str]:
        words = [str(word) for word in arguments]
        assert commands.main(words) == code, capsys.readouterr().err
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        warned = caplog.text
        caplog.clear()
        return printed.out, printed.err + warned

    run, index, number = tmp_path / "run", tmp_path / "shop.index", len(names())

    # check: a pattern that merges the stores is said, as are the files that are no images.
    out, err = call("check", "--images", shop, "--camera-pattern", "cam([0-9])")
    assert "store A/cam1, store B/cam1 are treated as one camera" in err
    out, err = call("check", "--images", shop, *CAMERAS)
    assert "2 files are ignored (1 .txt, 1 .gif)" in err and "one camera" not in err
    assert str(number) in out

    # train nothing: a frozen network is a run.
    tiny = tiny_options(BASELINE, run, SOLVER__MAX_EPOCH=0, UNSUP__REPORT=True)
    pairs = [
        word
        for key, value in zip(tiny[::2], tiny[1::2])
        if not key.startswith("DATASETS.") and key != "OUTPUT_DIR"
        for word in (key, value)
    ]
    train = ["train", "--images", shop, *CAMERAS, "--config", ROOT / BASELINE, "--output", run]
    out, err = call(*train, *pairs)
    assert "no training (SOLVER.MAX_EPOCH 0)" in out
    assert (run / "report.html").stat().st_size > 10_000
    results = json.loads((run / "results.json").read_text())
    assert results["before"] is None and 0 <= results["after"]["mAP"] <= 100

    # label: the features are kept, and every image has a row that reads back as it was.
    model = ["--run", run, "--index", index]
    label = ["label", *model, "--output", tmp_path / "labels.csv", "--min-size", 1]
    out, err = call(*label, "--images", shop, *CAMERAS, "--method", "bottom_up")
    assert f"{number} embedded" in out and f"{number} images of 4 cameras" in out
    out, err = call(*label, "--method", "auto", "--sheets", tmp_path / "sheets")
    assert "embedded" not in out and "sheets:" in out
    rows = rows_of(tmp_path / "labels.csv")
    assert len(rows) == number and not any(row["path"][0] in "=+-@" for row in rows)
    again = read_folder(shop, csv=str(tmp_path / "labels.csv"))
    assert {os.path.relpath(item.path, shop) for item in again} == set(names())
    assert {item.camera for item in again} == {f"store {s}/cam{c}" for s in "AB" for c in (1, 2)}

    # search twice: nothing is embedded again, and cameras are those of the index.
    query = shop / names()[2]
    search = ["search", *model, "--query", query, "--other-cameras", "--json", "--pictures"]
    call(*search, "--output", tmp_path / "first", "--gallery", shop)
    out, err = call(*search, "--output", tmp_path / "second", "--gallery", shop)
    assert "no change; 0 embedded" in out
    first, second = (rows_of(tmp_path / name / "ranks.csv") for name in ("first", "second"))
    assert first == second and len(first) == 10
    assert "store A/cam1" not in {row["camera"] for row in first}

    # export, report, and a script that is not in the checkout.
    out, err = call("export", "--run", run, "--output", tmp_path / "model.pt")
    assert "resized by Pillow" in out
    out, err = call("report", run, "--output", tmp_path / "again.html")
    assert (tmp_path / "again.html").stat().st_size > 10_000
    script = (
        "import sys, numpy as np\nfrom unreid.inference import Predictor\n"
        "features = Predictor.from_run(sys.argv[1])(sys.argv[2:])\n"
        "np.save('features.npy', features)\n"
    )
    (tmp_path / "script.py").write_text(script)
    subprocess.run(
        [sys.executable, "script.py", str(run), str(query), str(shop / names()[3])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=300,
    )
    module = torch.jit.load(str(tmp_path / "model.pt"))
    assert np.load(tmp_path / "features.npy").shape == (2, 1280) and module is not None

    # ten mistakes: each ends with one line that names it, and changes nothing.
    before = index.read_bytes(), (tmp_path / "labels.csv").read_bytes()
    shutil.copytree(shop / "store A", tmp_path / "other")
    (bad,) = fill(tmp_path / "broken", ["a.png"])
    truncate(bad)
    (tmp_path / "empty").mkdir()
    gallery = ["search", "--run", run, "--output", tmp_path / "out"]
    mistakes: list[tuple[list[object], str]] = [
        (["label", "--run", tmp_path / "none", "--images", shop], "is no folder of a run"),
        (["label", "--run", run, "--images", tmp_path / "empty"], "no image found"),
        (["label", "--run", run, "--images", tmp_path / "broken"], "cannot be read"),
        ([*label, "--images", tmp_path / "other"], "--images-moved"),
        ([*label, "--camera-pattern", "cam([0-9])"], "contradict it"),
        ([*label, "--no-center-cameras", "--whiten-cameras", "0.3"], "--center-cameras"),
        ([*gallery, "--gallery", shop, "--query", tmp_path / "no.png"], "no such file"),
        ([*gallery, "--query", query, "--index", tmp_path / "labels.csv"], "is damaged, or not"),
        (["report", tmp_path / "nowhere"], "no such folder"),
        (["eval", "--run", tmp_path / "empty"], "is no folder of a run"),
    ]
    for arguments, words in mistakes:
        out, err = call(*arguments, code=2)
        assert words in err and err.count("error:") == 1, (arguments, err)
    assert before == (index.read_bytes(), (tmp_path / "labels.csv").read_bytes())
