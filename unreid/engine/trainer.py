"""fast-reid's trainer with new pseudo labels before every epoch.

A subclass of ``DefaultTrainer`` that replaces the parts that unsupervised training cannot use: the
loader (fixed at construction), the flat parameter buffer (trains nothing with torch >= 2), mixed
precision (CUDA only), the checkpointer, and the hooks that read person ids.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from fastreid.engine import DefaultTrainer, hooks
from fastreid.engine.hooks import HookBase
from fastreid.engine.train_loop import TrainerBase
from fastreid.solver import build_optimizer
from fastreid.utils import comm
from torch import nn

from unreid.checks import check_integer
from unreid.contracts import Labeler, ReIDModel
from unreid.data.loader import SwappableLoader, build_test_loader
from unreid.data.unlabelled import UnlabelledImages
from unreid.engine import distributed
from unreid.engine.checkpoint import AtomicCheckpointer, set_rng_state, unwrap
from unreid.engine.checkpoint_hook import CheckpointHook
from unreid.engine.console import ConsoleHook
from unreid.engine.epoch_log import EpochEndWriter, EpochLogHook, EvaluationHook
from unreid.engine.frozen import run_frozen
from unreid.engine.label_hook import PseudoLabelHook
from unreid.engine.replicas import average_norm_statistics, synchronize_replicas, wrap_ddp
from unreid.engine.results import scores_of
from unreid.engine.score import score
from unreid.engine.selection import Selection
from unreid.engine.step import UnsupervisedStep
from unreid.evaluation.label_scorer import LabelScorer
from unreid.evaluation.reid_evaluator import UnsupervisedEvaluator
from unreid.modeling.build import build_model
from unreid.reading.tensors import load_tensors
from unreid.structures import PseudoLabels, PseudoPairs

logger = logging.getLogger("fastreid.unreid.trainer")


class ReplicaSyncHook(HookBase):
    """Make the models of all processes equal after an epoch, before evaluation and checkpoint."""

    def after_epoch(self) -> None:
        model = unwrap(self.trainer.model)
        average_norm_statistics(model)
        differing = synchronize_replicas(model)
        if differing:
            logger.warning(
                f"after epoch {self.trainer.epoch} the replicas differed in"
                f" {', '.join(differing[:5])} ({len(differing)} in total); the values of rank 0 are"
                " used"
            )


class UnsupervisedTrainer(DefaultTrainer):
    """Train one model on the pseudo labels of one labeler.

    Args:
        cfg: A checked config; ``OUTPUT_DIR`` is the folder of this stage.
        images: Training images of the stage.
        labeler: Called before every epoch.
        quality: Scores labels against the ids for the log. No other object of the training loop has
            access to ids.
        evaluate: Whether the stage evaluates on ``DATASETS.TESTS``.

    Attributes:
        seconds: Wall seconds by phase.
        selected: ``epoch``, selection ``score`` and test scores (percent) of the selected round;
            None before the end of training, or if the labeler selects no model.
    """

    def __init__(
        self,
        cfg: Any,
        images: UnlabelledImages,
        labeler: Labeler,
        *,
        quality: LabelScorer | None = None,
        evaluate: bool = True,
    ) -> None:
        # DefaultTrainer.__init__ would build fast-reid's loader and hooks, so it is not called.
        TrainerBase.__init__(self)
        self.cfg = cfg
        self.labeler = labeler
        self.evaluates = evaluate and len(cfg.DATASETS.TESTS) > 0
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)  # each stage has its own folder
        loader = SwappableLoader()
        model = self.build_model(cfg)
        if not isinstance(model, ReIDModel):
            raise TypeError(
                f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} must be a"
                " subclass of unreid.contracts.ReIDModel to be trained"
            )
        optimizer, wrapper = self.build_optimizer(cfg, model)
        wrapped = wrap_ddp(model)
        self._trainer = UnsupervisedStep.from_config(cfg, wrapped, loader, optimizer, wrapper)
        self.iters_per_epoch = cfg.UNSUP.ITERS_PER_EPOCH
        self.max_epoch = cfg.SOLVER.MAX_EPOCH
        self.max_iter = self.max_epoch * self.iters_per_epoch
        self.warmup_iters = cfg.SOLVER.WARMUP_ITERS
        self.delay_epochs = cfg.SOLVER.DELAY_EPOCHS
        self.start_epoch = 0
        self.scheduler = self.build_lr_scheduler(cfg, optimizer, self.iters_per_epoch)
        self.checkpointer = AtomicCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            save_to_disk=comm.is_main_process(),
            optimizer=optimizer,
            **self.scheduler,
        )
        if self._trainer.grad_scaler is not None:
            self.checkpointer.checkpointables["grad_scaler"] = self._trainer.grad_scaler
        self.checkpointer.checkpointables["labeler"] = labeler
        selection = None
        if labeler.selects_model:
            selection = Selection(labeler.selection_score, cfg.OUTPUT_DIR)
            self.checkpointer.checkpointables["selection"] = selection
        self.label_hook = PseudoLabelHook(cfg, images, labeler, loader, quality, selection)
        self.checkpoint_hook = CheckpointHook(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD)
        self.selected: dict[str, Any] | None = None
        self._last_eval_results: OrderedDict[str, Any] | None = None
        self.seconds = self.label_hook.seconds
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_model(cls, cfg: Any) -> nn.Module:
        """Build the model of ``MODEL.META_ARCHITECTURE`` on ``MODEL.DEVICE``."""
        model = build_model(cfg)
        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        logger.info(
            f"{cfg.MODEL.META_ARCHITECTURE} on {cfg.MODEL.BACKBONE.NAME}:"
            f" {parameters:.2f} M parameters"
        )
        return model

    @classmethod
    def build_optimizer(cls, cfg: Any, model: nn.Module) -> Any:
        """Build fast-reid's optimiser without its flat parameter buffer.

        Since torch 2.0 ``zero_grad`` sets gradients to None. This detaches the flat gradient buffer
        from the parameters, so that training would silently have no effect.
        """
        return build_optimizer(cfg, model, contiguous=False)

    @classmethod
    def build_test_loader(cls, cfg: Any, dataset_name: str) -> Any:
        """See :func:`unreid.data.loader.build_test_loader`."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(
        cls,
        cfg: Any,
        dataset_name: str,
        output_dir: str | None = None,
        model: nn.Module | None = None,
    ) -> Any:
        """Return (loader, evaluator) of one test set; the model defines the evaluator."""
        loader, num_query = cls.build_test_loader(cfg, dataset_name)
        own = None if model is None else unwrap(model)
        if isinstance(own, ReIDModel):
            return loader, own.build_evaluator(cfg, num_query, output_dir)
        return loader, UnsupervisedEvaluator(cfg, num_query, output_dir)  # a model of fast-reid

    @classmethod
    def test(cls, cfg: Any, model: nn.Module) -> OrderedDict[str, Any]:
        """Return the scores of all ``DATASETS.TESTS`` by name; with one set, its scores."""
        results: OrderedDict[str, Any] = OrderedDict()
        for name in cfg.DATASETS.TESTS:
            loader, evaluator = cls.build_evaluator(cfg, name, model=model)
            flip = cfg.TEST.FLIP.ENABLED
            results[name] = score(unwrap(model), loader, evaluator, flip=flip)
            scores = ", ".join(f"{k} {v:.2f}" for k, v in results[name].items() if k != "metric")
            logger.info(f"{name}{describe_test_settings(cfg)}: {scores}")
        return results if len(results) != 1 else next(iter(results.values()))

    def evaluate(self) -> OrderedDict[str, Any]:
        """Evaluate the current model, and store its scores as the latest result."""
        results = self.test(self.cfg, self.model)
        self._last_eval_results = results
        return results

    def build_hooks(self) -> list[HookBase | None]:
        """Build the hooks; labels come first, evaluation before the checkpoint, writers last."""
        cfg = self.cfg
        freeze = cfg.MODEL.FREEZE_LAYERS and cfg.SOLVER.FREEZE_ITERS > 0
        period = max(1, min(50, self.iters_per_epoch))
        writes = comm.is_main_process()
        evaluation = EvaluationHook(cfg.TEST.EVAL_PERIOD) if self.evaluates else None
        log = EpochLogHook(cfg.OUTPUT_DIR, self._trainer, self.label_hook, evaluation)
        self.epoch_log = log
        return [
            self.label_hook,
            # Time from the first iteration on: otherwise fast-reid's printer estimates the time and
            # divides by zero after an epoch of three iterations or fewer.
            hooks.IterationTimer(warmup_iter=1),
            hooks.LRScheduler(self.optimizer, self.scheduler),
            hooks.LayerFreeze(self.model, cfg.MODEL.FREEZE_LAYERS, cfg.SOLVER.FREEZE_ITERS)
            if freeze
            else None,
            ReplicaSyncHook() if distributed.world_size() > 1 else None,
            evaluation,
            log if writes else None,
            self.checkpoint_hook,
            EpochEndWriter(self.build_writers(), period) if writes else None,
            ConsoleHook(log, cfg.OUTPUT_DIR) if writes else None,
        ]

    def extra_state(self) -> dict[str, Any]:
        """Return further checkpoint entries: labels, pairs, hash of the image list, project."""
        labels = self.label_hook.labels
        pairs = labels.pairs if labels is not None else None
        return {
            "labels": torch.from_numpy(labels.labels.copy())
            if labels is not None
            else torch.zeros(0),
            "pairs": torch.from_numpy(pairs.indices.copy())
            if pairs is not None
            else torch.zeros(0),
            "pair_confidence": torch.from_numpy(pairs.confidence.copy())
            if pairs is not None
            else torch.zeros(0),
            "num_images": len(self.label_hook.images),
            "image_list": self._image_list(),
            "project": self.cfg.PROJECT,
        }

    def _image_list(self) -> str:
        """Return a hash of the ordered image paths, because labels refer to images by position."""
        paths = "\n".join(self.label_hook.images.relative_paths)
        return hashlib.sha256(paths.encode()).hexdigest()

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume from the last checkpoint in ``OUTPUT_DIR``, or start from ``MODEL.WEIGHTS``.

        Raises:
            FileNotFoundError, ValueError: See
                :meth:`unreid.engine.checkpoint.AtomicCheckpointer.load`.
            ValueError: The checkpoint was trained on other images.
            RuntimeError: The processes see different contents of ``OUTPUT_DIR``.
        """
        found = distributed.all_gather(resume and self.checkpointer.get_checkpoint_file())
        if len(set(found)) > 1:
            raise RuntimeError(
                f"OUTPUT_DIR {self.cfg.OUTPUT_DIR} must be a folder shared by all processes, but"
                " only some of them find its last checkpoint"
            )
        super().resume_or_load(resume=resume)
        if not (resume and self.checkpointer.has_checkpoint()):
            return
        path = self.checkpointer.get_checkpoint_file()
        state = load_tensors(path)
        num = check_integer(f"{path}: num_images", state.get("num_images", -1))
        if num != len(self.label_hook.images):
            raise ValueError(
                f"checkpoint {path} was trained on {num} images, but DATASETS.NAMES has"
                f" {len(self.label_hook.images)}"
            )
        if state.get("image_list", self._image_list()) != self._image_list():
            raise ValueError(
                f"checkpoint {path} was trained on other images than those of DATASETS.NAMES"
            )
        try:
            self.label_hook.labels = _labels_from_checkpoint(state)
            set_rng_state(state["rng"])
        except Exception as error:  # values of a wrong type raise errors of many types
            raise ValueError(
                f"checkpoint {path} cannot be resumed from: its labels or its random"
                f" state are damaged ({type(error).__name__}: {error})"
            ) from error
        labels = self.label_hook.labels
        if labels is not None and len(labels) != num:
            raise ValueError(
                f"checkpoint {path} cannot be resumed from: it has labels of"
                f" {len(labels)} images, but was trained on {num}"
            )
        logger.info(f"Resumed from {path} at epoch {self.start_epoch}")

    def train(self) -> OrderedDict[str, Any] | None:
        """Train the remaining epochs; return the scores of the last evaluation, or None."""
        if self.max_epoch == 0:
            return run_frozen(self)
        # The ``finally`` of TrainerBase.train reads ``epoch`` even if no epoch is trained.
        self.epoch = self.start_epoch - 1
        start = time.perf_counter()
        before = sum(self.seconds.values())
        with self.checkpoint_hook.save_on_early_exit():
            TrainerBase.train(self, self.start_epoch, self.max_epoch, self.iters_per_epoch)
        self.label_hook.score_last_round()
        others = sum(self.seconds.values()) - before
        self.seconds["train"] = time.perf_counter() - start - others
        self._evaluate_selected()
        return self._last_eval_results

    def _evaluate_selected(self) -> None:
        """Evaluate the selected round, then restore the weights of the last epoch."""
        selection = self.label_hook.selection
        if selection is None or selection.epoch < 0:
            return
        self.selected = {"epoch": selection.epoch, "score": round(selection.score, 6)}
        if not self.evaluates:
            return
        results = self._last_eval_results
        if selection.epoch != self.max_epoch - 1 or results is None:
            model = unwrap(self.model)
            last = {key: value.clone() for key, value in model.state_dict().items()}
            AtomicCheckpointer(model).load(selection.path)
            results = self.test(self.cfg, self.model)
            model.load_state_dict(last)
        self.selected.update(scores_of(results))


def _labels_from_checkpoint(state: dict[str, Any]) -> PseudoLabels | None:
    """Return the labels and pairs of a checkpoint, or None if it has no labels."""
    labels = state.get("labels")
    if labels is None or not labels.numel():
        return None
    indices, confidence = state.get("pairs"), state.get("pair_confidence")
    pairs = None
    if indices is not None and indices.ndim == 2 and confidence is not None:
        pairs = PseudoPairs(indices.numpy(), confidence.numpy())
    return PseudoLabels(labels.numpy().astype(np.int64), pairs=pairs)


def describe_test_settings(cfg: Any) -> str:
    """Return the test settings that change scores, as text to print next to them, or "".

    They are those of ``TEST`` and ``RERANK.ENABLED`` of a project that has this key.
    """
    test = cfg.TEST
    named = [
        name
        for name, on in (
            ("TEST.CENTER_CAMERAS", test.CENTER_CAMERAS),
            ("TEST.FLIP", test.FLIP.ENABLED),
            ("TEST.AQE", test.AQE.ENABLED),
        )
        if on
    ]
    named += [
        f"{name}.RERANK"
        for name, node in cfg.items()
        if isinstance(node, dict) and "RERANK" in node and node["RERANK"].ENABLED
    ]
    return f" ({', '.join(named)})" if named else ""
