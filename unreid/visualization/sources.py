"""The config and the training images of a run, from its folder; and the call at its end."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from unreid.config import load_config
from unreid.data.unlabelled import UnlabelledImages, load_training_images
from unreid.visualization.evidence import quiet

logger = logging.getLogger("fastreid.unreid.report")


def load_sources(
    folder: str | Path, opts: list[str]
) -> tuple[Any, UnlabelledImages | None, np.ndarray | None, list[str]]:
    """(config, training images, ids, remarks) of the run in ``folder``.

    What cannot be had is None with a remark: a run whose data is elsewhere still has curves.

    Raises:
        KeyError, ValueError: ``opts`` that do not fit the config.
    """
    path = Path(folder, "config.yaml")
    if not path.is_file():
        return None, None, None, ["without config.yaml there is no model and no picture"]
    remarks = []
    try:
        cfg, _ = load_config(str(path), ["OUTPUT_DIR", str(folder), *opts], freeze=False)
    except FileNotFoundError as error:  # weights that training started from, gone since
        remarks.append(f"{error}: what was before training is that of random weights")
        cfg, _ = load_config(
            str(path), ["OUTPUT_DIR", str(folder), *opts, "MODEL.BACKBONE.PRETRAIN", "False"],
            freeze=False)
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
    """What one types to have the page made again."""
    return f"python tools/report.py {shlex.quote(str(folder))}"


def report_after_training(
    cfg: Any, images: UnlabelledImages, pids: np.ndarray | None
) -> str | None:
    """Write the page of a run that has just ended; its path, or None when that did not work.

    A training never fails because of its report: the reason is a warning with the command that
    makes the page later.
    """
    try:
        from unreid.visualization.page import write_report

        path = write_report(cfg.OUTPUT_DIR, cfg=cfg, images=images, pids=pids)
    except Exception as error:
        # The one place where anything may be caught: the training is done, and saved.
        logger.warning(
            f"no report ({type(error).__name__}: {error}); the training itself is complete. To try"
            f" again: {command_for(cfg.OUTPUT_DIR)}"
        )
        return None
    logger.info(f"Report: {path.resolve()}")
    return str(path)
