"""Checkpoints: everything that ``--resume`` needs, written atomically, loaded without pickle.

A checkpoint consists of tensors and plain values only, so it loads with ``weights_only=True``.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fastreid.utils.checkpoint import Checkpointer
from torch import nn

from unreid.checks import check_integer
from unreid.engine.atomic import replace_file
from unreid.reading.tensors import check_state_dict
from unreid.weights.container import StateDict, read_weights, strip_prefixes
from unreid.weights.container import unwrap as unwrap_weights
from unreid.weights.fit import fit_state, inner

logger = logging.getLogger("fastreid.unreid.checkpoint")


def rng_state() -> dict[str, Any]:
    """Return the state of all global random generators, as tensors and plain values."""
    version, internal, gauss = random.getstate()
    # fast-reid's transforms sample from the global generator, so its state has to be saved.
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, torch.tensor(internal), gauss],
        "numpy": [kind, torch.tensor(np.asarray(keys, np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the state that :func:`rng_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    words = keys.numpy().astype(np.uint32)
    np.random.set_state((kind, words, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


class AtomicCheckpointer(Checkpointer):
    """fast-reid's checkpointer with atomic writes, safe loading and checks of the loaded model."""

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``name.pth`` atomically, then write its name to ``last_checkpoint``."""
        if not self.save_dir or not self.save_to_disk:
            return
        self.write(name, self.content(**kwargs))

    def content(self, **kwargs: Any) -> dict[str, Any]:
        """Return what :meth:`save` writes; the tensors share memory with the trained model."""
        states = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        return {"model": self.model.state_dict(), **kwargs, **states}

    def write(self, name: str, data: dict[str, Any]) -> None:
        """Write ``data`` to ``name.pth``; ``last_checkpoint`` is updated after it is on disk."""
        with replace_file(os.path.join(self.save_dir, f"{name}.pth")) as file:
            torch.save(data, file)
        with replace_file(os.path.join(self.save_dir, "last_checkpoint"), "w") as file:
            file.write(f"{name}.pth")

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint as fast-reid's checkpointer does, and check it.

        Args:
            path: A file or URL; with an empty path nothing is loaded.
            checkpointables: Names of the objects to restore beside the model; all by default.

        Returns:
            The remaining entries of the checkpoint, such as ``epoch``.

        Raises:
            FileNotFoundError: ``path`` does not exist.
            ValueError: The file is not a checkpoint, or a checkpoint of another model.
        """
        if not path:
            # fast-reid logs "Training model from scratch" here, although weights that were loaded
            # when the model was built (MODEL.BACKBONE.PRETRAIN) are kept.
            return {}
        if not os.path.isfile(path) and "://" not in path:
            raise FileNotFoundError(f"checkpoint {path}: no such file")
        self._path = path
        content = super().load(path, [])
        for key in self.checkpointables if checkpointables is None else checkpointables:
            if key not in content:
                continue
            try:
                self.checkpointables[key].load_state_dict(content.pop(key))
            except Exception as error:  # each kind of object raises its own errors
                raise ValueError(
                    f"checkpoint {path} cannot be resumed from: its {key} is damaged or belongs to"
                    f" another run ({type(error).__name__}: {error})"
                ) from error
        if "epoch" in content:
            check_integer(f"checkpoint {path}: epoch", content["epoch"], 0, 10**9)
        return content

    def get_checkpoint_file(self) -> str:
        """Return the path of the file that ``last_checkpoint`` names, or "" without that file.

        Raises:
            ValueError: It names a file outside of this folder.
        """
        tag = os.path.join(self.save_dir, "last_checkpoint")
        if not os.path.isfile(tag):
            return ""
        with open(tag, "rb") as file:
            name = file.read(256).decode(errors="replace").strip()
        if name != os.path.basename(name) or not name.endswith(".pth") or not name.isprintable():
            raise ValueError(f"{tag} must name a checkpoint in its own folder, got {name[:80]!r}")
        return os.path.join(self.save_dir, name)

    def _load_file(self, f: str) -> Any:
        checkpoint = read_weights(f, "checkpoint")
        if not isinstance(checkpoint, dict):
            raise ValueError(f"checkpoint {f} must hold a dict, got {type(checkpoint).__name__}")
        # A file without the key "model" was saved by another program; its state dict is the model.
        found = checkpoint
        if "model" not in checkpoint:
            found = {"model": unwrap_weights(checkpoint, f, "checkpoint").tensors}
        check_state_dict(f, found["model"])
        return found

    def _load_model(self, checkpoint: Any) -> None:
        state = checkpoint.pop("model")
        state = {key.removeprefix("module."): value for key, value in state.items()}
        own = self.model.state_dict()
        state = self._of_backbone(state, own)
        for key in state.keys() & own.keys():
            # Half precision is refused, too: see unreid.weights.container.check_values.
            if state[key].dtype != own[key].dtype and not (
                state[key].is_floating_point()
                and own[key].is_floating_point()
                and state[key].element_size() >= own[key].element_size()
            ):
                raise ValueError(
                    f"checkpoint {self._path} is damaged or of another model: {key} must be"
                    f" {own[key].dtype}, got {state[key].dtype}"
                )
        # The classifier of supervised training is dropped if the model has no classifier.
        state = {k: v for k, v in state.items() if k != "heads.weight" or k in own}
        missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
        missing = [k for k in missing if not k.startswith("memory.")]
        try:
            unexpected = self.model.load_state_dict(state, strict=False).unexpected_keys
        except RuntimeError as error:
            raise ValueError(
                f"checkpoint {self._path} is of another model (see MODEL.BACKBONE.*, MODEL.HEADS.*"
                f" of its config.yaml): {error}"
            ) from error
        backbone = [k for k in own if k.startswith("backbone.")]
        lost = [k for k in missing if k.startswith("backbone.")]
        if lost:
            raise ValueError(
                f"checkpoint {self._path} is of another model: {len(lost)} of {len(backbone)}"
                f" backbone entries are missing, the first is {lost[0]!r}; it holds"
                f" {', '.join(repr(k) for k in list(state)[:3])}, ..."
            )
        for description, keys in (
            ("not in the checkpoint, kept as initialised", missing),
            ("not in the model, ignored", unexpected),
        ):
            if keys:
                logger.warning(f"{self._path}: {description}: {', '.join(sorted(keys)[:8])}")

    def _of_backbone(self, state: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """Return weights of a backbone alone under the model's names; others as they are.

        Raises:
            ValueError: they are of another backbone.
        """
        if any(key in own for key in state) or not any(k.startswith("backbone.") for k in own):
            return state
        backbone = self.model.get_submodule("backbone")
        network = inner(backbone)
        prefix = "backbone." if network is backbone else "backbone.network."
        names = network.state_dict().keys()
        if not names & strip_prefixes(StateDict(state), names).tensors.keys():
            return state  # no name in common: the caller says what the file holds
        fit = fit_state(network, StateDict(state), self._path, "checkpoint")
        logger.info(f"{self._path}: weights of a backbone: {fit.describe()}")
        return {f"{prefix}{name}": value for name, value in fit.matched.items()}


def unwrap(model: nn.Module) -> Any:
    """Return the model inside DistributedDataParallel, or ``model`` itself."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
