"""Write ``results.json``: scores before and after training, wall time, versions of libraries.

The file is rewritten atomically after each stage, so a killed run keeps the results so far.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from fastreid.utils import comm
from fastreid.utils.collect_env import collect_env_info

from unreid.checks import check_number
from unreid.config import config_hash
from unreid.engine.atomic import replace_file, save_json
from unreid.env import versions
from unreid.reading.json_file import read_json

logger = logging.getLogger("fastreid.unreid.results")

#: The scores that a run reports, in percent.
SCORES = ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP")


def record_settings(cfg: Any, args: Any, *, keep: bool = False) -> None:
    """Log environment, command line and config, and write the config to ``config.yaml``.

    Unlike ``default_setup`` of fast-reid it writes the file atomically and seeds no generator.

    Args:
        cfg: The config.
        args: Parsed command line.
        keep: Do not overwrite an existing ``config.yaml``; for an evaluation in the folder of a
            training.
    """
    logger.info(f"Rank {comm.get_rank()} of {comm.get_world_size()}\n{collect_env_info()}")
    logger.info(f"Command line: {args}")
    logger.info(f"Full config:\n{cfg}")
    path = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
    if comm.is_main_process() and cfg.OUTPUT_DIR and not (keep and os.path.isfile(path)):
        with replace_file(path, "w") as file:
            file.write(cfg.dump())
    if not keep:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


class RunResults:
    """Content of ``OUTPUT_DIR/results.json``; each change is written to disk immediately.

    Args:
        cfg: Config of the run.
        resume: Keep the entries that an earlier process of the same run wrote.
    """

    def __init__(self, cfg: Any, *, resume: bool) -> None:
        self.path = os.path.join(cfg.OUTPUT_DIR, "results.json")
        self.content: dict[str, Any] = {
            "before": None,
            "after": None,
            "labels": None,
            "seconds": {},
        }
        if resume and os.path.isfile(self.path):
            self.content.update(self._read_earlier())
        self.content.update(
            project=cfg.PROJECT,
            datasets={"train": list(cfg.DATASETS.NAMES), "test": list(cfg.DATASETS.TESTS)},
            center_cameras={
                "labels": bool(cfg.UNSUP.CENTER_CAMERAS),
                "test": bool(cfg.TEST.CENTER_CAMERAS),
            },
            config_hash=config_hash(cfg),
            versions=versions(),
        )

    def _read_earlier(self) -> dict[str, Any]:
        found = read_json(self.path)
        for key, kinds in (("before", (dict, type(None))), ("seconds", (dict,))):
            if not isinstance(found.get(key, self.content[key]), kinds):
                raise ValueError(
                    f"{self.path}: {key} must be an object, got {found[key]!r:.60};"
                    " correct or delete the file"
                )
        for phase, value in found.get("seconds", {}).items():
            check_number(f"{self.path}: seconds of {phase}", value, 0)
        return found

    def put(self, key: str, value: Any) -> None:
        """Set one entry; rank 0 writes the file."""
        self.content[key] = value
        if comm.is_main_process():
            save_json(self.path, self.content)

    def put_scores(self, key: str, results: Mapping[str, Any]) -> None:
        """Set an entry to the scores of one test set, or of several by name."""
        if results:
            self.put(key, scores_of(results))

    def add_seconds(self, seconds: Mapping[str, float]) -> None:
        """Add wall seconds by phase; a resumed run adds to the earlier seconds."""
        total = dict(self.content["seconds"])
        for phase, value in seconds.items():
            total[phase] = round(total.get(phase, 0.0) + value, 3)
        self.put("seconds", total)


def scores_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reported scores (:data:`SCORES`, TPR@) of one test set, or of several by name."""
    if results and all(isinstance(v, Mapping) for v in results.values()):
        return {name: scores_of(values) for name, values in results.items()}
    return {
        k: round(float(v), 4) for k, v in results.items() if k in SCORES or k.startswith("TPR@")
    }
