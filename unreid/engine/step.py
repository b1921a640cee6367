"""One optimiser step: mixed precision, gradient accumulation, checks for non-finite values.

[0] Micikevicius et al., Mixed Precision Training, ICLR 2018, https://arxiv.org/abs/1710.03740

Notation: B images per step, A micro-batches.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from fastreid.engine.train_loop import SimpleTrainer
from fastreid.utils import comm
from torch import Tensor, nn

from unreid.data.loader import SwappableLoader
from unreid.engine.checkpoint import unwrap
from unreid.engine.interrupt import reraise_signal

#: Maximum number of consecutive skipped float16 steps. After 25 the loss scale has fallen from 2^16
#: to 2^-9, so a gradient that is still not finite is no overflow.
MAX_SKIPPED_STEPS = 25

_ADVICE = "try a lower SOLVER.BASE_LR or a larger SOLVER.WARMUP_ITERS"


class UnsupervisedStep(SimpleTrainer):
    """Compute losses and gradients, update the weights, then call ``update_memory`` of the model.

    Args:
        model: A :class:`unreid.contracts.ReIDModel`, or one inside DistributedDataParallel.
        loader: Batches of B images.
        optimizer: Takes one step per batch.
        param_wrapper: Parameter wrapper of fast-reid's ``build_optimizer``.
        amp_dtype: Autocast dtype of the forward pass, or None for float32. With float16 the losses
            are scaled [0], and a step whose gradients overflow is skipped.
        device: Device of the model.
        accumulate: A, number of micro-batches. Each has B / A consecutive images, so whole clusters
            stay together. The gradient is the mean over the micro-batches; the memory is updated
            after all of them. Losses within a batch (triplets) and batch norm see one micro-batch
            only; ghost batch norm (``MODEL.GHOST_BN``) gives the same result if its group size
            divides B / A.

    Attributes:
        skipped: Number of consecutive steps skipped because of float16 overflow.
        losses: Losses of the last step by name.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: SwappableLoader,
        optimizer: torch.optim.Optimizer,
        param_wrapper: Any,
        *,
        amp_dtype: torch.dtype | None = None,
        device: str = "cpu",
        accumulate: int = 1,
    ) -> None:
        super().__init__(model, loader, optimizer, param_wrapper)
        self.amp_dtype = amp_dtype
        self.accumulate = accumulate
        self.device_type = device.split(":")[0]
        scale_momentum(model, accumulate)
        scaled = amp_dtype == torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.device_type) if scaled else None
        self.skipped = 0
        self.losses: dict[str, Tensor] = {}

    @classmethod
    def from_config(
        cls,
        cfg: Any,
        model: nn.Module,
        loader: SwappableLoader,
        optimizer: torch.optim.Optimizer,
        param_wrapper: Any,
    ) -> UnsupervisedStep:
        """Build the step from ``SOLVER.AMP``, ``SOLVER.ACCUMULATE`` and ``MODEL.COMPILE``.

        Raises:
            ValueError: The GPU does not support bfloat16; or ``MODEL.COMPILE`` with ghost batch
                norm groups of unequal size, see :func:`check_norm_groups`.
            RuntimeError: torch.compile does not work on this machine.
        """
        if cfg.MODEL.COMPILE:
            check_norm_groups(cfg, comm.get_world_size())
            compile_backbone(unwrap(model), cfg.MODEL.COMPILE_BACKEND, cfg.MODEL.DEVICE)
        return cls(
            model,
            loader,
            optimizer,
            param_wrapper,
            amp_dtype=_amp_dtype(cfg),
            device=cfg.MODEL.DEVICE,
            accumulate=cfg.SOLVER.ACCUMULATE,
        )

    def run_step(self) -> None:
        """Train on the next batch.

        Raises:
            FloatingPointError: A loss or a gradient is not finite. Weights and memory are
                unchanged.
        """
        reraise_signal()
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        total, updates = self._backward(data)
        self.losses = total
        self._write_metrics(total, data_time)
        self._optimize(total)
        for update in updates:
            unwrap(self.model).update_memory(update)

    def _backward(self, data: dict[str, Any]) -> tuple[dict[str, Tensor], list[Any]]:
        """Accumulate the gradients of a batch; return losses and memory update per micro-batch."""
        total: dict[str, Tensor] = {}
        updates: list[Any] = []
        parts = split_batch(data, self.accumulate)
        for number, part in enumerate(parts):
            with self._gradient_sync(last=number == len(parts) - 1):
                with torch.autocast(
                    self.device_type, self.amp_dtype, enabled=self.amp_dtype is not None
                ):
                    losses, update = self.model(part)
                    loss = sum(losses.values())
                self._check_losses(losses)
                loss = loss / len(parts)
                (self.grad_scaler.scale(loss) if self.grad_scaler is not None else loss).backward()
            for name, value in losses.items():
                total[name] = total.get(name, 0) + value.detach() / len(parts)
            if update is not None:
                updates.append(update)
        return total, updates

    @contextlib.contextmanager
    def _gradient_sync(self, *, last: bool) -> Iterator[None]:
        """Synchronise gradients between processes for the last micro-batch only."""
        if last or not isinstance(self.model, nn.parallel.DistributedDataParallel):
            yield
            return
        with self.model.no_sync():
            yield

    def _optimize(self, losses: dict[str, Tensor]) -> None:
        scaler = self.grad_scaler
        if scaler is None:
            self._check_gradients(losses)
            self.optimizer.step()
            return
        before = scaler.get_scale()
        scaler.step(self.optimizer)  # skips the step if a gradient overflowed
        scaler.update()
        self.skipped = self.skipped + 1 if scaler.get_scale() < before else 0
        if self.skipped > MAX_SKIPPED_STEPS:
            raise FloatingPointError(
                f"the gradient was not finite in iteration {self.iter} and the {MAX_SKIPPED_STEPS}"
                f" before it, at any loss scale ({_format_losses(losses)}); use bfloat16"
                " (SOLVER.AMP.DTYPE) or float32 (SOLVER.AMP.ENABLED False), which overflow later,"
                f" or {_ADVICE}"
            )

    def _check_losses(self, losses: dict[str, Tensor]) -> None:
        bad = [name for name, value in losses.items() if not math.isfinite(float(value.detach()))]
        if bad:
            raise FloatingPointError(
                f"{' and '.join(bad)} not finite in iteration {self.iter}"
                f" ({_format_losses(losses)}); {_ADVICE}"
            )

    def _check_gradients(self, losses: dict[str, Tensor]) -> None:
        """Check all gradients before the optimiser's step.

        A check of the weights would find a NaN one iteration, or one checkpoint, too late.

        Raises:
            FloatingPointError: A gradient is not finite; names its parameter.
        """
        gradients = {
            n: p.grad for n, p in unwrap(self.model).named_parameters() if p.grad is not None
        }
        if not gradients:
            return
        largest = torch.stack(
            [torch.linalg.vector_norm(g.detach(), math.inf).float() for g in gradients.values()]
        )
        finite = torch.isfinite(largest)
        if bool(finite.all()):
            return
        name = next(n for n, good in zip(gradients, finite.tolist()) if not good)
        raise FloatingPointError(
            f"the gradient of {name} (and of {int((~finite).sum()) - 1} others) is not finite in"
            f" iteration {self.iter}, although all losses are finite ({_format_losses(losses)});"
            f" {_ADVICE}"
        )


def _format_losses(losses: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())


def split_batch(data: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """Split a batch into ``parts`` micro-batches of consecutive images.

    Args:
        data: Tensors and lists of length B.
        parts: A, a divisor of B.

    Returns:
        A micro-batches of B / A images.

    Raises:
        ValueError: A does not divide B.
    """
    if parts == 1:
        return [data]
    size = len(data["images"])
    if size % parts:
        raise ValueError(
            f"a batch of {size} images cannot be split into SOLVER.ACCUMULATE {parts} micro-batches"
            " of equal size"
        )
    step = size // parts
    return [{k: v[i : i + step] for k, v in data.items()} for i in range(0, size, step)]


def scale_momentum(model: nn.Module, parts: int) -> None:
    """Replace the momentum m of batch norm by 1 - (1 - m)^(1 / A), in place.

    A updates with the new momentum give the old statistics the same weight as one update with m.
    """
    if parts == 1:
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = 1 - (1 - module.momentum) ** (1 / parts)


def _amp_dtype(cfg: Any) -> torch.dtype | None:
    amp, device = cfg.SOLVER.AMP, cfg.MODEL.DEVICE
    if not amp.ENABLED:
        return None
    # GPUs before Ampere emulate bfloat16, which is slower than float32.
    if (
        amp.DTYPE == "bfloat16"
        and device.startswith("cuda")
        and torch.cuda.get_device_capability(device) < (8, 0)
    ):
        raise ValueError(
            f"SOLVER.AMP.DTYPE must be float16 on {torch.cuda.get_device_name(device)}, which does"
            " not support bfloat16, got 'bfloat16'"
        )
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}[amp.DTYPE]


def check_norm_groups(cfg: Any, processes: int) -> None:
    """Check that ghost batch norm has groups of one size when the backbone is compiled.

    With groups of several sizes the gradients of inductor are wrong, see
    :class:`unreid.modeling.ghost_norm.GhostBatchNorm2d`.

    Args:
        cfg: The config.
        processes: Number of processes.

    Raises:
        ValueError: The group sizes differ.
    """
    group = cfg.MODEL.GHOST_BN
    size = cfg.SOLVER.IMS_PER_BATCH // (processes * cfg.SOLVER.ACCUMULATE)
    if group and size % min(-(-size // group), size // 2):
        raise ValueError(
            f"MODEL.GHOST_BN must split {size} images into groups of equal size with"
            f" MODEL.COMPILE True, got {group}"
        )


def compile_backbone(model: nn.Module, backend: str, device: str) -> None:
    """Compile ``model.backbone`` by torch.compile in place; the names of parameters do not change.

    Heads, memory and losses are not compiled: they are cheap, and depend on values and shapes that
    change from batch to batch.

    Raises:
        RuntimeError: ``backend`` does not work on this machine, for example without a compiler.
    """
    probe = torch.compile(lambda x: (x + 1).sum(), backend=backend)
    try:
        probe(torch.zeros(8, device=device))
    except Exception as error:  # a compiler raises errors of many types
        raise RuntimeError(
            f"MODEL.COMPILE: torch.compile with backend {backend!r} does not work on this machine;"
            " set MODEL.COMPILE False"
            f" ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
        ) from error
    model.backbone.compile(backend=backend)  # type: ignore[operator, union-attr]
