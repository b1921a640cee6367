"""Config and training images of a run's report, and the report after training."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from unreid.config import load_config
from unreid.data.unlabelled import UnlabelledImages, load_training_images
from unreid.visualization.retrieval import quiet

logger = logging.getLogger("fastreid.unreid.report")


def load_sources(
    folder: str | Path, opts: list[str]
) -> tuple[Any, UnlabelledImages | None, np.ndarray | None, list[str]]:
    """Return (config, training images, identities, remarks) of the run in ``folder``.

    Unavailable parts are None, with a remark, so that a run without its data can have a report.

    Args:
        folder: ``OUTPUT_DIR`` of the run.
        opts: Config overrides: key, value, key, value, ...

    Raises:
        KeyError, ValueError: ``opts`` do not fit the config.
    """
    path = Path(folder, "config.yaml")
    if not path.is_file():
        return None, None, None, ["config.yaml is missing: no model and no images"]
    remarks = []
    try:
        cfg, _ = load_config(str(path), ["OUTPUT_DIR", str(folder), *opts], freeze=False)
    except FileNotFoundError as error:  # the start weights were removed
        remarks.append(f"{error}: results before training are those of random weights")
        cfg, _ = load_config(
            str(path),
            ["OUTPUT_DIR", str(folder), *opts, "MODEL.BACKBONE.PRETRAIN", "False"],
            freeze=False,
        )
    try:
        with quiet():
            images, pids = load_training_images(
                cfg.DATASETS.NAMES, bad_image=cfg.UNSUP.BAD_IMAGE, cfg=cfg
            )
    except (OSError, ValueError, KeyError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        return cfg, None, None, [*remarks, f"the training images could not be read: {text}"]
    cfg.UNSUP.NUM_CAMERAS, cfg.UNSUP.NUM_IMAGES = len(images.cameras), len(images)
    cfg.freeze()
    return cfg, images, pids if cfg.UNSUP.LOG_LABEL_QUALITY else None, remarks


def command_for(folder: str | Path) -> str:
    """Return the command that writes the report again."""
    return f"python tools/report.py {shlex.quote(str(folder))}"


def report_after_training(
    cfg: Any, images: UnlabelledImages, pids: np.ndarray | None
) -> str | None:
    """Write the report after training; return its path, or None after a failure.

    A training never fails because of its report. A failure is logged as a warning with the command
    that writes the report.
    """
    try:
        from unreid.visualization.page import write_report

        path = write_report(cfg.OUTPUT_DIR, cfg=cfg, images=images, pids=pids)
    except Exception as error:
        # Any error is caught here, because the training is complete and saved.
        logger.warning(
            f"no report was written ({type(error).__name__}: {error}); the training is complete."
            f" To try again: {command_for(cfg.OUTPUT_DIR)}"
        )
        return None
    logger.info(f"Report: {path.resolve()}")
    return str(path)
