"""When a checkpoint is written: every few epochs, at the end, and before a run ends early."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from fastreid.engine.hooks import HookBase
from fastreid.utils import comm
from torch import nn

from unreid.engine.checkpoint import AtomicCheckpointer, rng_state, unwrap
from unreid.engine.interrupt import defer_signals

logger = logging.getLogger("fastreid.unreid.checkpoint")

#: The name that a running job keeps overwriting, and the one it ends with.
LAST, FINAL = "model_last", "model_final"

#: A disk that is full, over its quota, read-only or broken; or a file over its limit.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


class CheckpointHook(HookBase):
    """Saves every ``period`` epochs under one name, and the final model under another.

    Between two saves it keeps a copy of the newest epoch's end in memory, so that a run that is
    interrupted loses no whole epoch (:meth:`save_on_early_exit`).

    Args:
        checkpointer: Where and what.
        period: Epochs between two saves; the last epoch is always saved.
    """

    def __init__(self, checkpointer: AtomicCheckpointer, period: int) -> None:
        self.checkpointer = checkpointer
        self.period = period
        self._pending: tuple[str, dict[str, Any]] | None = None
        self._saved_epoch = -1

    def before_train(self) -> None:
        self._saved_epoch = self.trainer.start_epoch - 1
        if self._saved_epoch == self.trainer.max_epoch - 1:
            self._remove_last()  # a kill may have come between the final one and this

    def after_epoch(self) -> None:
        trainer = self.trainer
        check_finite(unwrap(trainer.model), trainer.epoch)
        if not comm.is_main_process():
            return
        done = trainer.epoch + 1
        last = done == trainer.max_epoch
        content = self.checkpointer.content(
            epoch=trainer.epoch, rng=rng_state(), **trainer.extra_state()
        )
        if last or done % self.period == 0:
            self._pending = FINAL if last else LAST, content
            self._write()
        else:
            self._pending = LAST, copy_to_cpu(content)

    def _write(self) -> None:
        if self._pending is None:
            return
        name, content = self._pending
        self.checkpointer.write(name, content)
        self._pending, self._saved_epoch = None, content["epoch"]
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
        self._write()
        return self._describe_saved()

    def _describe_saved(self) -> str:
        if self._saved_epoch < 0:
            return "no epoch is saved: --resume begins with the first one"
        trainer, epoch = self.trainer, self._saved_epoch + 1
        again = trainer.iter - epoch * trainer.iters_per_epoch
        return (
            f"{self.checkpointer.get_checkpoint_file()} holds the state after epoch"
            f" {self._saved_epoch}; --resume goes on from there"
            + (
                f" (epoch {epoch} from its first iteration: {again} are done again)"
                if again > 0
                else ""
            )
        )

    @contextlib.contextmanager
    def save_on_early_exit(self) -> Iterator[None]:
        """Whatever ends this block early, the newest epoch's end is saved first.

        Ctrl-C, SIGTERM, a training that diverges and a full disk say what was saved; other errors
        pass on as they are, and the log says it.
        """
        try:
            yield
        except (KeyboardInterrupt, FloatingPointError) as error:
            said = self.save_now()
            reason = f"{error}; {said}" if str(error) else said
            logger.warning(f"{type(error).__name__}: {reason}")
            raise type(error)(reason) from error
        except Exception as error:
            # Of several processes the launcher ends this one by SIGTERM when another has failed,
            # just as the error of its lost connection is on its way.
            # The first error is shown, not that of a full disk.
            with defer_signals(), contextlib.suppress(OSError):
                self.save_now()
            said = self._describe_saved()
            logger.warning(said)
            if not (isinstance(error, OSError) and error.errno in _DISK_ERRORS):
                raise
            what = error.strerror or ""
            if "could not write" not in what:
                what = f"could not write the log of {self.checkpointer.save_dir} ({what})"
            raise OSError(error.errno, f"{what}; {said}") from error


def copy_to_cpu(content: Any) -> Any:
    """A copy on the CPU that training leaves alone, of tensors and plain values."""
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return {key: copy_to_cpu(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(copy_to_cpu(value) for value in content)
    return content


def check_finite(model: nn.Module, epoch: int) -> None:
    """Stop before a model that cannot be used replaces the last good checkpoint.

    Raises:
        FloatingPointError: a parameter that is not finite, or a buffer with NaN.
    """
    for name, value in model.named_parameters():
        if not bool(torch.isfinite(value).all()):
            raise FloatingPointError(
                f"{name} not finite after epoch {epoch}; a lower SOLVER.BASE_LR helps most often"
            )
    for name, buffer in model.named_buffers():
        if bool(torch.isnan(buffer).any()):
            raise FloatingPointError(
                f"{name} NaN after epoch {epoch}; a lower SOLVER.BASE_LR helps most often"
            )
