"""Fixtures: a tiny trained run, its report, and run folders with given contents."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.projects.tiny_run import BASELINE, load_tiny, train_tiny
from unreid.reading.epochs_file import EpochRecord
from unreid.visualization.page import write_report
from unreid.visualization.sources import load_sources


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, synthetic_root: Path) -> Path:
    """Return the folder of a complete tiny training, with its log file."""
    import logging
    from types import SimpleNamespace

    from unreid.engine import run

    folder = tmp_path_factory.mktemp("runs") / "trained"
    log = logging.getLogger("fastreid")
    handlers, propagate, level = list(log.handlers), log.propagate, log.level
    before = os.environ.get("FASTREID_DATASETS")
    settings: dict[str, Any] = {
        "UNSUP__EVAL_BEFORE": True,
        "TEST__EVAL_PERIOD": 1,
        "SOLVER__MAX_EPOCH": 3,
    }
    try:
        cfg, _ = load_tiny(BASELINE, folder, **settings)
        run.start(cfg, SimpleNamespace(config_file=str(BASELINE), eval_only=False, resume=False))
        train_tiny(BASELINE, synthetic_root, folder, **settings)
    finally:
        for handler in [h for h in log.handlers if h not in handlers]:
            handler.close()
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
        os.environ.pop("FASTREID_DATASETS", None)
        if before is not None:
            os.environ["FASTREID_DATASETS"] = before
    return folder


@pytest.fixture(scope="session")
def page(trained: Path, synthetic_root: Path) -> Path:
    """Return the complete report of :func:`trained`."""
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    try:
        cfg, images, pids, remarks = load_sources(trained, [])
        assert not remarks
        return write_report(trained, cfg=cfg, images=images, pids=pids)
    finally:
        os.environ.pop("FASTREID_DATASETS", None)


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of :func:`trained` that a test may modify."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> Iterator[WriteRun]:
    """Return a function that writes a run's folder: label files, results, epochs, losses."""

    def write(
        name: str = "run",
        *,
        labels: list[list[int]] | None = None,
        camids: list[int] | None = None,
        paths: list[str] | None = None,
        results: dict[str, Any] | None = None,
        epochs: Sequence[EpochRecord] = (),
        metrics: str = "",
        config: str = "PROJECT: CALR\n",
    ) -> Path:
        folder = tmp_path / name
        (folder / "labels").mkdir(parents=True)
        for epoch, row in enumerate(labels or []):
            cameras = camids or [0] * len(row)
            np.savez(
                folder / "labels" / f"epoch_{epoch:03d}.npz",
                labels=np.array(row),
                camids=np.array(cameras),
                paths=np.array(paths or [f"{i}.jpg" for i in range(len(row))]),
            )
        (folder / "config.yaml").write_text(config)
        if results is not None:
            (folder / "results.json").write_text(json.dumps(results))
        if epochs:
            lines = "".join(record.to_line() for record in epochs)
            (folder / "epochs.jsonl").write_text(lines)
        if metrics:
            (folder / "metrics.json").write_text(metrics)
        return folder

    yield write
