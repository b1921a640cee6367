"""The label step before every epoch: extract features, assign labels, update model and loader.

[0] Lin et al.: A bottom-up clustering approach to unsupervised person re-identification (BUC),
    2019, https://doi.org/10.1609/aaai.v33i01.33018738 (tracklets of video, Sec. 4)

Notation: N images, C clusters, T tracklets.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from fastreid.engine.hooks import HookBase

from unreid.clustering.partition import centroids
from unreid.contracts import Labeler
from unreid.data.loader import SwappableLoader, build_train_loader
from unreid.data.samplers import RankBatches
from unreid.data.unlabelled import UnlabelledImages
from unreid.engine import distributed
from unreid.engine.atomic import save_arrays
from unreid.engine.checkpoint import unwrap
from unreid.engine.extract import extract
from unreid.engine.replicas import seed_per_rank, seed_replicated
from unreid.engine.selection import Selection
from unreid.evaluation.label_scorer import LabelScorer
from unreid.labels.neighbours import Search
from unreid.labels.transforms import apply_transforms, transforms_from_config
from unreid.registry import SAMPLER_REGISTRY
from unreid.structures import FeatureBank, PseudoLabels

logger = logging.getLogger("fastreid.unreid.labels")

T = TypeVar("T")


@dataclass(frozen=True)
class LabelStep:
    """Measurements of one label step.

    Attributes:
        quality: Name of the labels -> metric -> value; empty without ground-truth ids.
        remarks: Name -> value of what the labeler reports.
        seconds: Phase of the hook -> wall seconds: ``extract``, ``label``, and ``judge`` for the
            selection score.
        label_seconds: Phase within ``label`` -> wall seconds.
    """

    quality: Mapping[str, Mapping[str, float]]
    remarks: Mapping[str, str]
    seconds: Mapping[str, float]
    label_seconds: Mapping[str, float]


class PseudoLabelHook(HookBase):
    """Assign new labels before each epoch; update the model and the loader, and save the labels.

    Args:
        cfg: The config.
        images: All N training images.
        labeler: Labeler of the method.
        loader: Loader of the trainer.
        quality: Scores labels against the ids for the log, or None.
        selection: Model selection, updated at the end of each round, or None.

    Attributes:
        labels: Current labels; None before the first label step.
        step: Label step of this epoch; None if the previous labels were kept.
        started: Unix time at which this epoch began.
        seconds: Wall seconds by phase, summed over all epochs.
    """

    def __init__(
        self,
        cfg: Any,
        images: UnlabelledImages,
        labeler: Labeler,
        loader: SwappableLoader,
        quality: LabelScorer | None = None,
        selection: Selection | None = None,
    ) -> None:
        self.cfg = cfg
        self.images = images
        self.labeler = labeler
        self.transforms = transforms_from_config(cfg, Search.from_config(cfg))
        self.loader = loader
        self.quality = quality
        self.selection = selection
        self.labels: PseudoLabels | None = None
        self.step: LabelStep | None = None
        self.started = 0.0
        self.seconds: dict[str, float] = {}

    def before_epoch(self) -> None:
        epoch = self.trainer.epoch
        self.started, self.step = time.time(), None
        seed_replicated(self.cfg.UNSUP.SEED, epoch)
        if self.labels is not None and not self._renews(epoch):
            # A checkpoint stores labels and pairs only: reduce the labels to these, so that an
            # uninterrupted run writes the same files as a resumed one.
            self.labels = PseudoLabels(self.labels.labels, pairs=self.labels.pairs)
            self.loader.swap(self._train_loader(self.labels, epoch))
            self._save(self.labels, epoch)
            logger.info(f"Labels of epoch {epoch}: unchanged")
        else:
            self._relabel(epoch)
        seed_per_rank(self.cfg.UNSUP.SEED, epoch)

    def after_epoch(self) -> None:
        # Runs before all other hooks, because evaluation uses the same worker processes.
        self.loader.end_epoch()

    def label_frozen(self) -> None:
        """Label once, as before epoch 0, for a network that is not trained: without a loader."""
        self.started = time.time()
        seed_replicated(self.cfg.UNSUP.SEED, 0)
        self._relabel(0, trains=False)

    def _relabel(self, epoch: int, *, trains: bool = True) -> None:
        start = time.perf_counter()
        bank = extract(self.cfg, self.trainer.model, self.images)
        extracted = time.perf_counter()
        pseudo, seconds = self._on_rank_0(lambda: self._label(bank, epoch))
        if trains:
            self._update_model(pseudo, bank, epoch)
            self.loader.swap(self._train_loader(pseudo, epoch))
        self.labels = pseudo
        seconds = {"extract": extracted - start, **seconds}
        for phase, value in seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + value
        self._save(pseudo, epoch)
        self._publish(pseudo, epoch, seconds)

    def _label(self, bank: FeatureBank, epoch: int) -> tuple[PseudoLabels, dict[str, float]]:
        """Score the round that ended, then assign new labels; called on rank 0 only."""
        start = time.perf_counter()
        for_labelling = self.bank_for_labelling(bank)
        if self.selection is not None and self.labels is not None:
            model = unwrap(self.trainer.model)
            self.selection.update(model, for_labelling, self._to_units(self.labels), epoch - 1)
        scored = time.perf_counter()
        pseudo = self._to_images(self.labeler(for_labelling, epoch))
        seconds = {"label": time.perf_counter() - scored}
        if self.selection is not None:
            seconds["judge"] = scored - start
        self._check_clusters(pseudo)
        return pseudo, seconds

    def _on_rank_0(self, work: Callable[[], T]) -> T:
        """Run ``work()`` on rank 0; broadcast its result and the labeler and selection states."""
        stateful = [part for part in (self.labeler, self.selection) if part is not None]

        def work_with_states() -> tuple[T, list[Any]]:
            result = work()
            states = [part.state_dict() for part in stateful]
            return result, states if distributed.world_size() > 1 else []

        result, states = distributed.run_on_rank_0(work_with_states)
        if distributed.rank() > 0:
            for part, state in zip(stateful, states):
                part.load_state_dict(state)
        return result

    def score_last_round(self) -> None:
        """Compute the selection score of the last round, after the last epoch."""
        if self.selection is None or self.labels is None:
            return
        model, labels = unwrap(self.trainer.model), self._to_units(self.labels)
        bank = extract(self.cfg, self.trainer.model, self.images)
        selection, last = self.selection, self.trainer.max_epoch - 1
        self._on_rank_0(
            lambda: selection.update(model, self.bank_for_labelling(bank), labels, last)
        )

    def compute_labels(self, epoch: int) -> PseudoLabels:
        """Return the labels that the current model yields, without side effects on the training.

        Only the state of the labeler changes.
        """
        bank = extract(self.cfg, self.trainer.model, self.images)
        return self._on_rank_0(lambda: self.labeler(self.bank_for_labelling(bank), epoch))

    def _renews(self, epoch: int) -> bool:
        return distributed.run_on_rank_0(lambda: self.labeler.renews(epoch))

    def _update_model(self, pseudo: PseudoLabels, bank: FeatureBank, epoch: int) -> None:
        """Pass the labels to the model, and clear the optimiser state of cluster parameters."""
        model = unwrap(self.trainer.model)
        model.on_new_labels(pseudo, bank, epoch)
        for parameter in model.label_parameters():
            self.trainer.optimizer.state.pop(parameter, None)

    def bank_for_labelling(self, bank: FeatureBank) -> FeatureBank:
        """Return the features that the labeler receives.

        With tracklets, each row is the mean of the frames of a tracklet [0]. Then the transforms of
        ``UNSUP`` (camera centring, whitening, smoothing) are applied. The memory, in contrast, is
        initialised with the features as extracted.
        """
        tracklets = self.images.tracklets
        if tracklets is not None:
            camids = bank.camids[self.images.unit_indices]
            bank = FeatureBank(centroids(bank.features, tracklets), camids)
        return apply_transforms(bank, self.transforms)

    def _to_images(self, pseudo: PseudoLabels) -> PseudoLabels:
        """Return labels of images: every frame gets the label of its tracklet."""
        if self.images.tracklets is None:
            return pseudo
        if pseudo.pairs is not None:
            raise RuntimeError(
                f"{type(self.labeler).__name__} returns pairs of images, but DATASETS.NAMES"
                f" {', '.join(self.cfg.DATASETS.NAMES)} has tracklets: pairs of tracklets are not"
                " supported; use a dataset without tracklets or a method with clusters only"
            )
        return PseudoLabels(
            self.images.of_images(pseudo.labels),
            intermediate={k: self.images.of_images(v) for k, v in pseudo.intermediate.items()},
            seconds=pseudo.seconds,
            remarks={"tracklets": str(len(pseudo)), **pseudo.remarks},
        )

    def _to_units(self, pseudo: PseudoLabels) -> PseudoLabels:
        """Return labels per tracklet; without tracklets, ``pseudo`` itself."""
        if self.images.tracklets is None:
            return pseudo
        return PseudoLabels(pseudo.labels[self.images.unit_indices])

    def _check_clusters(self, pseudo: PseudoLabels) -> None:
        if pseudo.num_clusters >= 2:
            return
        found = "no cluster" if pseudo.num_clusters == 0 else "one cluster only"
        raise RuntimeError(
            f"{found} in epoch {self.trainer.epoch}: {pseudo.num_noise} of {len(pseudo)} images"
            f" are noise ({100 * pseudo.num_noise / len(pseudo):.1f} %), by"
            f" {self.labeler.describe()}."
            " Loosen the clustering (a larger DBSCAN eps, a lower minimal similarity, a smaller"
            " minimal cluster size), start from pre-trained weights, or lower SOLVER.BASE_LR if"
            " earlier epochs had clusters"
        )

    def _train_loader(self, pseudo: PseudoLabels, epoch: int) -> Any:
        cfg = self.cfg
        # Replicated sampler: all processes sample the same global batches, and each takes its share
        # of every batch.
        sampler = SAMPLER_REGISTRY.get(cfg.DATALOADER.SAMPLER_TRAIN).from_labels(
            pseudo,
            self.images.camids,
            batch_size=cfg.SOLVER.IMS_PER_BATCH,
            num_instances=cfg.DATALOADER.NUM_INSTANCE,
            num_batches=cfg.UNSUP.ITERS_PER_EPOCH,
            rng=np.random.default_rng([cfg.UNSUP.SEED, epoch]),
        )
        number, ranks = distributed.rank(), distributed.world_size()
        source = [cfg.UNSUP.SEED, epoch, 1] + ([number] if number else [])
        seed = int(np.random.default_rng(source).integers(2**62))
        batches = RankBatches(sampler, number, ranks) if ranks > 1 else sampler
        return build_train_loader(cfg, self.images, pseudo.labels, batches, seed)

    def _save(self, pseudo: PseudoLabels, epoch: int) -> None:
        if distributed.rank() > 0:
            return
        folder = os.path.join(self.cfg.OUTPUT_DIR, "labels")
        pairs = {}
        if pseudo.pairs is not None:
            pairs = {"pairs": pseudo.pairs.indices, "pair_confidence": pseudo.pairs.confidence}
        save_arrays(
            os.path.join(folder, f"epoch_{epoch:03d}.npz"),
            paths=np.array(self.images.relative_paths),
            camids=self.images.camids,
            labels=pseudo.labels,
            **{f"labels_{name}": labels for name, labels in pseudo.intermediate.items()},
            **pairs,
        )

    def _publish(self, pseudo: PseudoLabels, epoch: int, seconds: Mapping[str, float]) -> None:
        counts = label_counts(pseudo, self.images.camids)
        scalars = {
            "clusters": counts["clusters"],
            "noise": counts["noise"] / counts["images"],
            **{k: v for k, v in counts.items() if k in ("largest", "cameras_per_cluster", "pairs")},
        }
        line = (
            f"Labels of epoch {epoch}: {counts['clusters']} clusters, noise {counts['noise']}"
            f" ({100 * scalars['noise']:.1f} %), largest {counts['largest']}, mean size"
            f" {counts['mean_size']:.1f}, cameras per cluster {counts['cameras_per_cluster']:.2f}"
        )
        line += "".join(f", {name} {value}" for name, value in pseudo.remarks.items())
        line += "; seconds: " + ", ".join(
            f"{name} {value:.2f}" for name, value in {**seconds, **pseudo.seconds}.items()
        )
        logger.info(line)
        quality: dict[str, Mapping[str, float]] = {}
        if self.quality is not None and distributed.rank() == 0:
            quality = self._score_labels(pseudo)
            for name, values in quality.items():
                prefix = "" if name in ("final", "pairs") else f"{name}_"
                scalars.update({f"{prefix}{k}": v for k, v in values.items()})
        self.step = LabelStep(quality, dict(pseudo.remarks), seconds, dict(pseudo.seconds))
        # fast-reid updates storage.iter after this hook only. Until then it is the last iteration
        # of the previous epoch, and writers drop values of an iteration that they have written.
        self.trainer.storage.iter = self.trainer.iter
        self.trainer.storage.put_scalars(
            smoothing_hint=False, **{f"labels/{k}": float(v) for k, v in scalars.items()}
        )

    def _score_labels(self, pseudo: PseudoLabels) -> dict[str, Mapping[str, float]]:
        """Return the quality of the intermediate labels, the final ones and the pairs."""
        assert self.quality is not None
        scored = {name: self.quality(labels) for name, labels in pseudo.intermediate.items()}
        scored["final"] = self.quality(pseudo.labels)
        if pseudo.pairs is not None:
            scored["pairs"] = self.quality.pairs(pseudo.pairs.indices)
        for name, values in scored.items():
            logger.info(
                f"  quality, {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items())
            )
        return scored


def label_counts(pseudo: PseudoLabels, camids: np.ndarray) -> dict[str, float]:
    """Return counts of a labelling: images, clusters, noise, cluster sizes, cameras per cluster.

    Args:
        pseudo: Labels of N images, with at least one cluster.
        camids: (N,) int64 camera ids.
    """
    sizes = pseudo.sizes
    counts = {
        "images": len(pseudo),
        "clusters": pseudo.num_clusters,
        "noise": pseudo.num_noise,
        "largest": int(sizes.max()),
        "mean_size": float(sizes.mean()),
        "cameras_per_cluster": float(cameras_per_cluster(pseudo.labels, camids).mean()),
    }
    return counts if pseudo.pairs is None else {**counts, "pairs": len(pseudo.pairs)}


def cameras_per_cluster(labels: np.ndarray, camids: np.ndarray) -> np.ndarray:
    """Return the number of cameras of each cluster, (C,) int64.

    Args:
        labels: (N,) int64 in -1..C-1; -1 is noise.
        camids: (N,) int64 camera ids.
    """
    kept = labels >= 0
    pairs = np.unique(np.stack([labels[kept], camids[kept]]), axis=1)
    return np.bincount(pairs[0])
