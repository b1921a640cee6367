"""Write a checkpoint every few epochs, after the last epoch, and before a run ends early."""

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

#: Name of the checkpoint that a running job overwrites, and name of the final one.
LAST, FINAL = "model_last", "model_final"

#: Errors of the disk: full, over quota, read-only, broken; or a file above the size limit.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


class CheckpointHook(HookBase):
    """Save ``model_last`` every ``period`` epochs, and ``model_final`` after the last epoch.

    Between two saves, a copy of the state after the newest epoch stays in main memory, so that an
    interrupted run loses no finished epoch (see :meth:`save_on_early_exit`).

    Args:
        checkpointer: Writes the checkpoints; rank 0 only.
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
            self._remove_last()  # the run may have been killed after the final checkpoint

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
        """Write the newest finished epoch if it is not on disk yet.

        Returns:
            Which epoch the checkpoint on disk holds, as a message for the user.

        Raises:
            OSError: See :func:`unreid.engine.atomic.replace_file`.
        """
        self._write()
        return self._describe_saved()

    def _describe_saved(self) -> str:
        if self._saved_epoch < 0:
            return "no epoch was saved: --resume starts with the first epoch"
        trainer, epoch = self.trainer, self._saved_epoch + 1
        repeated = trainer.iter - epoch * trainer.iters_per_epoch
        return (
            f"{self.checkpointer.get_checkpoint_file()} holds the state after epoch"
            f" {self._saved_epoch}; --resume continues from it"
            + (
                f" (epoch {epoch} starts again, {repeated} iterations are repeated)"
                if repeated > 0
                else ""
            )
        )

    @contextlib.contextmanager
    def save_on_early_exit(self) -> Iterator[None]:
        """Save the newest finished epoch if an exception ends this block.

        The message of Ctrl-C, SIGTERM, a diverged training and a full disk is extended by what was
        saved. Other exceptions pass unchanged; what was saved is logged.
        """
        try:
            yield
        except (KeyboardInterrupt, FloatingPointError) as error:
            saved = self.save_now()
            reason = f"{error}; {saved}" if str(error) else saved
            logger.warning(f"{type(error).__name__}: {reason}")
            raise type(error)(reason) from error
        except Exception as error:
            # If another process has failed, this one gets a SIGTERM of the launcher while it
            # handles the error of the lost connection. An OSError here must not replace the first
            # error.
            with defer_signals(), contextlib.suppress(OSError):
                self.save_now()
            saved = self._describe_saved()
            logger.warning(saved)
            if not (isinstance(error, OSError) and error.errno in _DISK_ERRORS):
                raise
            cause = error.strerror or ""
            if "could not write" not in cause:
                cause = f"could not write the log of {self.checkpointer.save_dir} ({cause})"
            raise OSError(error.errno, f"{cause}; {saved}") from error


def copy_to_cpu(content: Any) -> Any:
    """Return a deep copy of tensors and plain values on the CPU, independent of training."""
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return {key: copy_to_cpu(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(copy_to_cpu(value) for value in content)
    return content


def check_finite(model: nn.Module, epoch: int) -> None:
    """Check a model before it replaces the last good checkpoint.

    Raises:
        FloatingPointError: A parameter is not finite, or a buffer contains NaN.
    """
    for name, value in model.named_parameters():
        if not bool(torch.isfinite(value).all()):
            raise FloatingPointError(
                f"{name} is not finite after epoch {epoch}; try a lower SOLVER.BASE_LR"
            )
    for name, buffer in model.named_buffers():
        if bool(torch.isnan(buffer).any()):
            raise FloatingPointError(
                f"{name} is NaN after epoch {epoch}; try a lower SOLVER.BASE_LR"
            )
