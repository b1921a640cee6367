"""When a checkpoint is written: every few epochs, at the end, and before a run ends early."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from fastreid.engine.hooks import HookBase
from fastreid.utils import comm
from torch import nn

from unreid.engine.checkpoint import AtomicCheckpointer, rng_state, unwrap

logger = logging.getLogger("fastreid.unreid.checkpoint")

#: The name that a running job keeps overwriting, and the one it ends with.
LAST, FINAL = "model_last", "model_final"


class CheckpointHook(HookBase):
    """Saves every ``period`` epochs under one name, and the final model under another.

    Between two saves it keeps a copy of the newest epoch's end in memory, so that a run that is
    interrupted loses no whole epoch (:meth:`kept`).

    Args:
        checkpointer: Where and what.
        period: Epochs between two saves; the last epoch is always saved.
    """

    def __init__(self, checkpointer: AtomicCheckpointer, period: int) -> None:
        self.checkpointer = checkpointer
        self.period = period
        self._pending: tuple[str, dict[str, Any]] | None = None
        self._epoch = -1  # the last one that is saved or pending

    def before_train(self) -> None:
        self._epoch = self.trainer.start_epoch - 1
        if self._epoch == self.trainer.max_epoch - 1:
            self._remove_last()  # a kill may have come between the final one and this

    def after_epoch(self) -> None:
        trainer = self.trainer
        refuse_not_finite(unwrap(trainer.model), trainer.epoch)
        if not comm.is_main_process():
            return
        done = trainer.epoch + 1
        last = done == trainer.max_epoch
        content = self.checkpointer.content(
            epoch=trainer.epoch, rng=rng_state(), **trainer.extra_state()
        )
        if last or done % self.period == 0:
            self._pending = FINAL if last else LAST, content
            self._epoch = trainer.epoch
            self._write()
        else:
            self._pending = LAST, copied(content)
            self._epoch = trainer.epoch

    def _write(self) -> None:
        if self._pending is None:
            return
        name, content = self._pending
        self.checkpointer.write(name, content)
        self._pending = None
        if name == FINAL:
            self._remove_last()

    def _remove_last(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(self.checkpointer.save_dir, f"{LAST}.pth"))

    def save_now(self) -> str:
        """Save the newest epoch's end where that is still to be done; what stands, in words.

        Raises:
            OSError: see :func:`unreid.engine.atomic.replace_file`.
        """
        trainer = self.trainer
        self._write()
        if self._epoch < 0:
            return "no epoch had ended, so nothing is saved; --resume begins again"
        path = self.checkpointer.get_checkpoint_file() or self.checkpointer.save_dir
        again = trainer.iter - (self._epoch + 1) * trainer.iters_per_epoch
        return (f"{path} holds the state after epoch {self._epoch}; --resume goes on from there"
                + (f" ({again} iterations of epoch {self._epoch + 1} are done again)"
                   if again > 0 else ""))

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever ends this block early, the newest epoch's end is saved first.

        Ctrl-C, SIGTERM and a training that diverges say what was saved; other errors pass on as
        they are, and the log says it.
        """
        try:
            yield
        except (KeyboardInterrupt, FloatingPointError) as error:
            said = self.save_now()
            reason = f"{error}; {said}" if str(error) else said
            logger.warning(f"{type(error).__name__}: {reason}")
            raise type(error)(reason) from error
        except Exception:
            # Where the disk is full the first error says so.
            with contextlib.suppress(OSError):
                logger.warning(self.save_now())
            raise


def copied(content: Any) -> Any:
    """A copy on the CPU that training leaves alone, of tensors and plain values."""
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return {key: copied(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(copied(value) for value in content)
    return content


def refuse_not_finite(model: nn.Module, epoch: int) -> None:
    """Stop before a model that cannot be used replaces the last good checkpoint.

    Raises:
        FloatingPointError: a parameter that is not finite, or a buffer with NaN.
    """
    for name, value in model.named_parameters():
        if not bool(torch.isfinite(value).all()):
            raise FloatingPointError(f"{name} not finite after epoch {epoch}; a lower"
                                     " SOLVER.BASE_LR helps most often")
    for name, buffer in model.named_buffers():
        if bool(torch.isnan(buffer).any()):
            raise FloatingPointError(f"{name} NaN after epoch {epoch}; a lower SOLVER.BASE_LR"
                                     " helps most often")
