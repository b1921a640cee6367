"""Interfaces that a method implements: :class:`Labeler`, :class:`ReIDModel` and :class:`Project`.

Read this module first when you add a method (docs/add_a_method.md). Optional member functions have
a default that does nothing. The training loop therefore calls all of them, without testing whether
a class defines them.

One epoch calls, in this order::

    features, extra = model.extract_features(batch)      # all images, evaluation mode
    model.on_extracted([extra, ...])
    labeler.renews(epoch)                                # False keeps the labels
    labeler.selection_score(bank, previous_labels)       # only if labeler.selects_model
    pseudo = labeler(bank, epoch)
    model.on_new_labels(pseudo, bank, epoch)
    output = model(batch)                                # training mode: StepOutput
    model.update_memory(output.memory_update)            # after the optimiser's step

Notation: N images, B images of a batch, D channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from unreid.data.unlabelled import UnlabelledImages
from unreid.evaluation.label_scorer import LabelScorer
from unreid.evaluation.reid_evaluator import UnsupervisedEvaluator
from unreid.structures import FeatureBank, PseudoLabels


class StepOutput(NamedTuple):
    """Output of a model for a training batch.

    It is a tuple, because DistributedDataParallel must find the tensors in it.

    Attributes:
        losses: Name -> scalar. Each is logged under its name; their sum is minimised.
        memory_update: Argument of :meth:`ReIDModel.update_memory` after the optimiser's step,
            detached from the graph; None if the model has no update.
    """

    losses: dict[str, Tensor]
    memory_update: Any = None


class Labeler(ABC):
    """Assigns pseudo labels to the training images before an epoch.

    Attributes:
        selects_model: Whether :meth:`selection_score` is defined. If so, the model with the best
            score is saved as ``model_selected.pth`` (unsupervised model selection).
    """

    selects_model: bool = False

    @classmethod
    def from_config(cls, cfg: Any, images: UnlabelledImages) -> Labeler:
        """Build the labeler; the default calls ``cls(cfg)``."""
        return cls(cfg)  # type: ignore[call-arg]

    @classmethod
    def check_images(cls, cfg: Any, images: UnlabelledImages) -> None:
        """Raise ValueError if the method cannot be trained on these images."""

    @abstractmethod
    def __call__(self, bank: FeatureBank, epoch: int) -> PseudoLabels:
        """Return the labels of the N images of ``bank`` for ``epoch``."""

    def renews(self, epoch: int) -> bool:
        """Return whether ``epoch`` begins with new labels; if not, the previous ones are kept."""
        return True

    def selection_score(self, bank: FeatureBank, pseudo: PseudoLabels) -> float:
        """Return the selection score of a model, computed without ids; larger is better.

        Args:
            bank: Features of the model after it was trained on ``pseudo``.
            pseudo: The labels of the round that has ended.
        """
        raise NotImplementedError(f"{type(self).__name__} selects no model")

    def describe(self) -> str:
        """Return the settings that determine the number of clusters, for an error message."""
        return type(self).__name__

    def state_dict(self) -> dict[str, Any]:
        """Return the state for resuming, as tensors and plain values; every checkpoint saves it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""


class ReIDModel(nn.Module):
    """A network of a method; register it in fast-reid's ``META_ARCH_REGISTRY``.

    ``forward`` takes a batch: ``images`` (B, 3, H, W) float in 0..255 and, in training,
    ``targets``, ``camids`` and ``indices``, each (B,) int64. In training it returns a
    :class:`StepOutput`, in evaluation (B, D) features. It keeps no state of the batch.

    Most methods subclass :class:`unreid.modeling.memory_reid.MemoryReID`.
    """

    @property
    def find_unused_parameters(self) -> bool:
        """Whether a training step may leave parameters without a gradient.

        An example is a loss that is not used in some epochs. The value is passed to
        DistributedDataParallel as the argument of this name.
        """
        return True

    def extract_features(self, batch: dict[str, Any]) -> tuple[Tensor, Any]:
        """Return the (B, D) features of a batch for the label step, and extra data or None.

        :meth:`on_extracted` receives the extra data of all batches.
        """
        return self(batch), None

    def on_extracted(self, extras: Sequence[Any]) -> None:
        """Receive the extra data that :meth:`extract_features` returned.

        Args:
            extras: Extra data of all batches of all processes.
        """

    def on_new_labels(self, pseudo: PseudoLabels, bank: FeatureBank, epoch: int) -> None:
        """Prepare for new labels, for example reset a memory to the cluster centroids.

        Args:
            pseudo: Labels of the N training images.
            bank: Their features as extracted, without camera centring or smoothing.
            epoch: The epoch that starts with these labels.
        """

    def label_parameters(self) -> Sequence[nn.Parameter]:
        """Return the parameters that belong to clusters (class weights).

        Their optimiser state is cleared when the labels change.
        """
        return ()

    def update_memory(self, update: Any) -> None:
        """Update the memory by ``StepOutput.memory_update``, after the optimiser's step."""

    def build_evaluator(
        self, cfg: Any, num_query: int, output_dir: str | None = None
    ) -> UnsupervisedEvaluator:
        """Return the evaluator of a test set whose first ``num_query`` images are the queries."""
        return UnsupervisedEvaluator(cfg, num_query, output_dir)


class Project(ABC):
    """A method as a plug-in.

    The package of a method defines or imports exactly one subclass in its ``__init__``.

    Args:
        name: Value of ``cfg.PROJECT`` that selects the method.
        folder: Folder of its package and its configs.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    @abstractmethod
    def add_config(self, cfg: Any) -> None:
        """Declare the method's keys, ``cfg.MYMETHOD.*``, with their defaults."""

    def rename_key(self, key: str, value: Any) -> tuple[str, Any]:
        """Return the current name and value of a config key that is given under an old name.

        Args:
            key: Dotted key in a file or on the command line.
            value: Its value; a string if it comes from the command line.
        """
        return key, value

    def check_config(self, cfg: Any) -> None:
        """Raise ValueError for a value out of range."""

    def before_training(
        self, cfg: Any, images: UnlabelledImages, quality: LabelScorer | None
    ) -> None:
        """Run the stage before the main stage of training, if the method has one.

        Each finished part is saved as a file in ``OUTPUT_DIR``, from which a resumed run continues.

        Args:
            cfg: The frozen config.
            images: All training images.
            quality: Computes label metrics against the ids for the log; None without ids.
        """

    def draw_pictures(
        self, cfg: Any, weights: str, output: str, *, num_pairs: int = 6, num_images: int = 2000
    ) -> Sequence[str]:
        """Write figures of a trained model on some training images; return their paths.

        Raises:
            ValueError: The method has no figures.
        """
        raise ValueError(f"PROJECT {self.name} has nothing to draw; PseudoPair has")
