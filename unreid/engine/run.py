"""One run from a config: evaluate, train all stages of the project, evaluate, write results."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from fastreid.utils import comm
from fastreid.utils.env import seed_all_rng
from fastreid.utils.logger import setup_logger

from unreid.config import flat_keys
from unreid.contracts import Project
from unreid.data.loader import build_test_loader, close_loaders
from unreid.data.unlabelled import UnlabelledImages, load_training_images
from unreid.engine import distributed
from unreid.engine.checkpoint import AtomicCheckpointer
from unreid.engine.console import quiet_console
from unreid.engine.earlier_run import (
    finish_move,
    move_earlier_run,
    remove_temporary_files,
)
from unreid.engine.interrupt import interrupt_message
from unreid.engine.replicas import check_main_global_batch
from unreid.engine.results import RunResults, record_settings
from unreid.engine.trainer import UnsupervisedTrainer, describe_test_settings
from unreid.evaluation.label_scorer import LabelScorer
from unreid.reading.yaml_file import read_with_bases
from unreid.registry import LABELER_REGISTRY

logger = logging.getLogger("fastreid.unreid.run")


#: Training images, and the person id of each image or None.
TrainingData = tuple[UnlabelledImages, np.ndarray | None]


def prepare(cfg: Any, args: Any) -> TrainingData | None:
    """Read the training data, then call :func:`start`.

    In this order invalid data does not move the files of an earlier run. Log records of the reading
    are buffered until the log file in the output folder exists.

    Returns:
        The training data, or None with ``args.eval_only``.

    Raises:
        KeyError, ValueError, FileNotFoundError: See :func:`read_data`.
    """
    data = None
    with _buffered_log() as records:
        if not args.eval_only:
            data = distributed.run_on_rank_0(lambda: read_data(cfg))
    start(cfg, args)
    for record in records:
        logging.getLogger(record.name).handle(record)
    return data


def read_data(cfg: Any) -> TrainingData:
    """Read the training images, and check the batch size, the test sets and the labeler.

    Raises:
        KeyError, ValueError, FileNotFoundError: Invalid config or data.
    """
    check_main_global_batch(cfg)
    if not cfg.UNSUP.LABELER:
        raise ValueError("UNSUP.LABELER must name a labeler to train with, got ''")
    labeler_class = LABELER_REGISTRY.get(cfg.UNSUP.LABELER)
    images, pids = load_training_images(cfg.DATASETS.NAMES, bad_image=cfg.UNSUP.BAD_IMAGE, cfg=cfg)
    for name in cfg.DATASETS.TESTS:  # find a missing test set before hours of training
        build_test_loader(cfg, name)
    cfg = with_dataset_size(cfg, num_cameras=len(images.cameras), num_images=len(images))
    labeler_class.check_images(cfg, images)
    return images, pids


class _RecordBuffer(logging.Handler):
    """Buffer log records until the log file exists."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def _buffered_log() -> Iterator[list[logging.LogRecord]]:
    """Collect the log records of this block if fast-reid's logger is not set up yet."""
    log, handler = logging.getLogger("fastreid"), _RecordBuffer()
    if log.handlers:
        yield handler.records
        return
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield handler.records
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def start(cfg: Any, args: Any) -> None:
    """Set up the output folder, logging and seeds; log the settings that were chosen."""
    training = not args.eval_only

    def clean_output() -> tuple[str | None, list[str]]:
        target = None
        if training:
            move = finish_move if args.resume else move_earlier_run
            target = move(cfg.OUTPUT_DIR)
            remove_temporary_files(cfg.OUTPUT_DIR)
        return target, _changed_settings(cfg) if args.resume else []

    moved, changed = distributed.run_on_rank_0(clean_output)
    quiet_console(setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank()))
    record_settings(cfg, args, keep=not training)
    seed_all_rng(cfg.UNSUP.SEED)
    if cfg.MODEL.DEVICE == "cpu":
        logger.info(
            f"MODEL.DEVICE cpu ({torch.get_num_threads()} threads)"
            + ("" if torch.cuda.is_available() else ": no GPU was found")
        )
    if distributed.world_size() > 1:
        logger.info(
            f"{distributed.world_size()} processes with"
            f" {cfg.SOLVER.IMS_PER_BATCH // distributed.world_size()} images per batch each"
            f" (SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH})"
        )
    if moved:
        logger.warning(
            f"{cfg.OUTPUT_DIR} had an earlier run; it was moved to {moved}"
            " (--resume continues a run instead)"
        )
    if changed:
        logger.warning("resuming with changed settings: " + ", ".join(changed))


def _changed_settings(cfg: Any) -> list[str]:
    path = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
    if not os.path.isfile(path):
        return []
    earlier = dict(flat_keys(type(cfg)(read_with_bases(path))))
    now = dict(flat_keys(type(cfg).load_cfg(cfg.dump())))
    return [
        f"{k} {earlier[k]} -> {v}"
        for k, v in now.items()
        if k in earlier and earlier[k] != v and k != "MODEL.DEVICE"
    ]


def with_dataset_size(cfg: Any, *, num_cameras: int, num_images: int) -> Any:
    """Return a copy of the config with ``UNSUP.NUM_CAMERAS`` and ``UNSUP.NUM_IMAGES`` set."""
    clone = cfg.clone()
    clone.defrost()
    clone.UNSUP.NUM_CAMERAS = num_cameras
    clone.UNSUP.NUM_IMAGES = num_images
    clone.freeze()
    return clone


def evaluate_only(cfg: Any) -> dict[str, Any]:
    """Return the scores of ``MODEL.WEIGHTS`` (or the initial weights) on ``DATASETS.TESTS``."""
    model = UnsupervisedTrainer.build_model(cfg)
    AtomicCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return UnsupervisedTrainer.test(cfg, model)


@interrupt_message("finished stages are saved; --resume continues the run")
def train(
    cfg: Any, project: Project, *, resume: bool, data: TrainingData | None = None
) -> dict[str, Any]:
    """Run a whole training: evaluation before, all stages, evaluation after, results, report.

    Args:
        cfg: A checked config.
        project: The project of ``cfg.PROJECT``.
        resume: Continue the run in ``OUTPUT_DIR``.
        data: Return value of :func:`prepare` or :func:`read_data`; None reads the data here.

    Returns:
        The content of ``results.json``.

    Raises:
        KeyError, ValueError, FileNotFoundError: Invalid config or data, before any long work.
        RuntimeError: The labels have fewer than two clusters.
        FloatingPointError: Training has diverged.
    """
    images, pids = data or distributed.run_on_rank_0(lambda: read_data(cfg))
    cfg = with_dataset_size(cfg, num_cameras=len(images.cameras), num_images=len(images))
    quality = None
    if pids is not None and cfg.UNSUP.LOG_LABEL_QUALITY:
        quality = LabelScorer(pids, images.camids)
    labeler_class = LABELER_REGISTRY.get(cfg.UNSUP.LABELER)
    results = RunResults(cfg, resume=resume)
    results.content = distributed.run_on_rank_0(lambda: results.content)
    trains = cfg.SOLVER.MAX_EPOCH > 0  # a frozen network has one score, in "after"
    wanted = trains and cfg.UNSUP.EVAL_BEFORE and cfg.DATASETS.TESTS
    if wanted and results.content["before"] is None:
        started = time.perf_counter()
        logger.info("Evaluating the initial weights")
        seed_all_rng(cfg.UNSUP.SEED)  # random initial weights are those that training starts from
        results.put_scores("before", evaluate_only(cfg))
        results.add_seconds({"evaluate": time.perf_counter() - started})
    seed_all_rng(cfg.UNSUP.SEED)  # same weights and batches with or without EVAL_BEFORE
    started = time.perf_counter()
    project.before_training(cfg, images, quality)
    results.add_seconds({"before_training": time.perf_counter() - started})
    seed_all_rng(cfg.UNSUP.SEED)
    labeler = labeler_class.from_config(cfg, images)
    trainer = UnsupervisedTrainer(cfg, images, labeler, quality=quality)
    trainer.resume_or_load(resume=resume)
    after = trainer.train()
    if not after and trainer.evaluates and results.content["after"] is None:
        after = trainer.evaluate()  # the run was killed between final checkpoint and evaluation
    close_loaders()
    results.add_seconds(trainer.seconds)
    labels = trainer.label_hook.labels
    if labels is not None:
        entry: dict[str, Any] = {"clusters": labels.num_clusters, "noise": labels.num_noise}
        if quality is not None:
            entry.update({k: round(v, 4) for k, v in quality(labels.labels).items()})
        results.put("labels", entry)
    if after:
        results.put_scores("after", after)
    if trainer.selected is not None:
        results.put("selected", trainer.selected)
    _log_summary(cfg, results)
    if cfg.UNSUP.REPORT and comm.is_main_process():
        # Imported here, because visualisation is no part of training.
        from unreid.visualization.sources import report_after_training

        report_after_training(cfg, images, pids if cfg.UNSUP.LOG_LABEL_QUALITY else None)
    return results.content


def _log_summary(cfg: Any, results: RunResults) -> None:
    for key in ("before", "after"):
        scores = results.content[key]
        if scores:
            logger.info(f"{key}{describe_test_settings(cfg)}: {scores}")
    logger.info(f"Results: {os.path.abspath(results.path)}")
    sys.stdout.flush()
