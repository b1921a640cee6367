"""Valid files from which malicious files are made: two runs, images and a gallery index."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.projects.overrides import ROOT, tiny_options
from tests.projects.tiny_run import BASELINE, Interrupted, interrupted_at_step
from tests.tools.using import load_tool
from unreid.data.synthetic import generate_dataset


@dataclass(frozen=True)
class ValidFiles:
    """Paths of the valid files.

    Attributes:
        root: Folder of all files: ``run`` (a finished run), ``half`` (a run that was interrupted in
            its second epoch), ``sets`` (Market1501), ``crops`` (four images), ``crops.index``.
    """

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def half(self) -> Path:
        return self.root / "half"

    @property
    def sets(self) -> Path:
        return self.root / "sets"

    @property
    def crops(self) -> Path:
        return self.root / "crops"

    @property
    def index(self) -> Path:
        return self.root / "crops.index"


#: Features of an untrained network are nearly equal; after centring they form several clusters.
SPREAD = ("UNSUP.CENTER_CAMERAS", "True")


def _train(output: Path, *options: str) -> int:
    code: int = load_tool("train_net").main(
        ["--config-file", str(ROOT / BASELINE), *options, *SPREAD, *tiny_options(BASELINE, output)]
    )
    return code


def build(root: Path) -> ValidFiles:
    """Create all files in ``root``, or return those that an earlier call created."""
    valid = ValidFiles(root)
    if (root / "done").is_file():
        return valid
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    generate_dataset(
        valid.sets, num_train_ids=4, num_test_ids=3, num_cameras=2, images_per_id=6, seed=0
    )
    os.environ["FASTREID_DATASETS"] = str(valid.sets)
    with contextlib.suppress(Interrupted), interrupted_at_step(3):
        _train(valid.half)
    shutil.copytree(valid.half, valid.run)
    assert _train(valid.run, "--resume") == 0
    rng = np.random.default_rng(0)
    valid.crops.mkdir()
    for i, suffix in enumerate(("jpg", "png", "webp", "bmp")):
        array = np.repeat(rng.integers(0, 256, (8, 4, 3), dtype=np.uint8), 8, axis=0)
        Image.fromarray(np.repeat(array, 8, axis=1)).save(valid.crops / f"c{i % 2}_{i}.{suffix}")
    code = load_tool("search").main(
        ["--run", str(valid.run), "--gallery", str(valid.crops), "--index", str(valid.index)]
    )
    assert code == 0
    (root / "done").write_text(json.dumps({"runs": 2}))
    return valid


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    build(Path(sys.argv[1]))
