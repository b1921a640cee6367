"""Checkpoints that hold all that ``--resume`` needs, and are never half-written.

A checkpoint is tensors and plain values only, so it loads with ``weights_only=True``.
"""

from __future__ import annotations

import logging
import os
import random
from typing import Any

import numpy as np
import torch
from fastreid.utils.checkpoint import Checkpointer
from torch import nn

from unreid.checks import check_integer
from unreid.engine.atomic import replace_file
from unreid.reading.tensors import check_state_dict, load_tensors

logger = logging.getLogger("fastreid.unreid.checkpoint")


def rng_state() -> dict[str, Any]:
    """The state of every global generator, as tensors and plain values."""
    version, internal, gauss = random.getstate()
    # fast-reid's transforms draw from the global generator: it has to be saved.
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, torch.tensor(internal), gauss],
        "numpy": [kind, torch.tensor(np.asarray(keys, np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what :func:`rng_state` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    words = keys.numpy().astype(np.uint32)
    np.random.set_state((kind, words, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


class AtomicCheckpointer(Checkpointer):
    """fast-reid's checkpointer, with whole files, safe loading and errors for another model."""

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``name.pth`` under a temporary name, rename it, then tag it as the last one."""
        if not self.save_dir or not self.save_to_disk:
            return
        self.write(name, self.content(**kwargs))

    def content(self, **kwargs: Any) -> dict[str, Any]:
        """What :meth:`save` writes, sharing memory with what is being trained."""
        states = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        return {"model": self.model.state_dict(), **kwargs, **states}

    def write(self, name: str, data: dict[str, Any]) -> None:
        """Put a content on disk; ``last_checkpoint`` names it only when all of it stands."""
        with replace_file(os.path.join(self.save_dir, f"{name}.pth")) as file:
            torch.save(data, file)
        with replace_file(os.path.join(self.save_dir, "last_checkpoint"), "w") as file:
            file.write(f"{name}.pth")

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """See fast-reid's; a path that is no file is an error that names it.

        Raises:
            FileNotFoundError: ``path`` is not there.
            ValueError: it is no checkpoint, or one of another model.
        """
        if not path:
            # Unlike fast-reid, which logs "Training model from scratch": weights that were loaded
            # when the model was built (MODEL.BACKBONE.PRETRAIN) stay.
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
            except Exception as error:  # whatever values of another kind make each trip over
                raise ValueError(
                    f"checkpoint {path} cannot be resumed from: its {key} is damaged, or of another"
                    f" run ({type(error).__name__}: {error})"
                ) from error
        if "epoch" in content:
            check_integer(f"checkpoint {path}: epoch", content["epoch"], 0, 10**9)
        return content

    def get_checkpoint_file(self) -> str:
        """The file that ``last_checkpoint`` names.

        Raises:
            ValueError: what it names is no file of this folder.
        """
        tag = os.path.join(self.save_dir, "last_checkpoint")
        if not os.path.isfile(tag):
            return ""
        with open(tag, "rb") as file:
            name = file.read(256).decode(errors="replace").strip()
        if name != os.path.basename(name) or not name.endswith(".pth") or not name.isprintable():
            raise ValueError(f"{tag} must name a checkpoint of its own folder, got {name[:80]!r}")
        return os.path.join(self.save_dir, name)

    def _load_file(self, f: str) -> Any:
        checkpoint = load_tensors(f)
        if not isinstance(checkpoint, dict):
            raise ValueError(f"checkpoint {f} must hold a dict, got {type(checkpoint).__name__}")
        # A bare state dict (weights saved by another program) counts as a model.
        found = checkpoint if "model" in checkpoint else {"model": checkpoint}
        check_state_dict(f, found["model"])
        return found

    def _load_model(self, checkpoint: Any) -> None:
        state = checkpoint.pop("model")
        state = {key.removeprefix("module."): value for key, value in state.items()}
        own = self.model.state_dict()
        for key in state.keys() & own.keys():
            if state[key].dtype != own[key].dtype and not (
                state[key].is_floating_point() and own[key].is_floating_point()
            ):
                raise ValueError(
                    f"checkpoint {self._path} is damaged, or of another model: {key}"
                    f" is {state[key].dtype}, and must be {own[key].dtype}"
                )
        # A classifier of supervised training has no place in a model without one.
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
                f" backbone entries are missing in it, the first {lost[0]!r}; it holds"
                f" {', '.join(repr(k) for k in list(state)[:3])}, ..."
            )
        for what, keys in (
            ("not in the checkpoint, kept as built", missing),
            ("not in the model, left out", unexpected),
        ):
            if keys:
                logger.warning(f"{self._path}: {what}: {', '.join(sorted(keys)[:8])}")


def unwrap(model: nn.Module) -> Any:
    """The model inside DistributedDataParallel, or the model."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
