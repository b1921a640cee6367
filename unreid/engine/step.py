"""One optimiser step: in mixed precision, in parts, and never with a value that is not finite.

[0] Micikevicius et al., Mixed Precision Training, ICLR 2018, https://arxiv.org/abs/1710.03740

Notation: B images of a step, A parts.
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

#: After so many skipped steps in a row the scale of float16 is 2^-9 (it starts at 2^16): what is
#: still not finite then is no overflow.
MAX_SKIPPED_STEPS = 25

_ADVICE = "a lower SOLVER.BASE_LR or a longer SOLVER.WARMUP_ITERS helps most often"


class UnsupervisedStep(SimpleTrainer):
    """Losses, backward, optimiser, then the model's ``update_memory``.

    Args:
        model: A :class:`unreid.contracts.ReIDModel`, or one inside DistributedDataParallel.
        loader: Batches of B images.
        optimizer: Steps once per batch.
        param_wrapper: fast-reid's.
        amp_dtype: Precision of the forward pass where autocast allows it, or None for float32.
            With float16 the losses are scaled [0], and a step whose gradients overflow is skipped.
        device: Where the model is.
        accumulate: A. Each part is B / A consecutive images, so that whole clusters stay together;
            the gradient is the mean over the parts, and the memory moves once all are done. What a
            loss compares within a batch (triplets) and plain batch norm see a part alone; batch
            norm in groups (``MODEL.GHOST_BN``) that divide a part sees what it saw.
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
        self.losses: dict[str, Tensor] = {}  # of the last step, by name

    @classmethod
    def from_config(
        cls,
        cfg: Any,
        model: nn.Module,
        loader: SwappableLoader,
        optimizer: torch.optim.Optimizer,
        param_wrapper: Any,
    ) -> UnsupervisedStep:
        """By ``SOLVER.AMP``, ``SOLVER.ACCUMULATE``, ``MODEL.COMPILE``.

        Raises:
            ValueError: bfloat16 on a GPU that has none; or groups of batch norm that differ in
                size, which what compiles gets wrong.
            RuntimeError: torch.compile does not work here.
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
        """Next batch -> losses -> step.

        Raises:
            FloatingPointError: a loss or a gradient is not finite; nothing has been changed by it.
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
        """Gradients of the whole batch; its losses, and the memory update of each part."""
        total: dict[str, Tensor] = {}
        updates: list[Any] = []
        parts = split_batch(data, self.accumulate)
        for number, part in enumerate(parts):
            with self._gradient_sync(number == len(parts) - 1):
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
    def _gradient_sync(self, last: bool) -> Iterator[None]:
        """Processes exchange gradients once a step, after the last part."""
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
        scaler.step(self.optimizer)  # itself leaves out a step with an overflow
        scaler.update()
        self.skipped = self.skipped + 1 if scaler.get_scale() < before else 0
        if self.skipped > MAX_SKIPPED_STEPS:
            raise FloatingPointError(
                f"the gradient was not finite in iteration {self.iter} and the {MAX_SKIPPED_STEPS}"
                f" before it, at any scale ({_format_losses(losses)}); SOLVER.AMP.DTYPE bfloat16 or"
                f" float32 (SOLVER.AMP.ENABLED False) overflows later, and {_ADVICE}"
            )

    def _check_losses(self, losses: dict[str, Tensor]) -> None:
        bad = [name for name, value in losses.items() if not math.isfinite(float(value.detach()))]
        if bad:
            raise FloatingPointError(
                f"{' and '.join(bad)} not finite in iteration {self.iter}"
                f" ({_format_losses(losses)}); {_ADVICE}"
            )

    def _check_gradients(self, losses: dict[str, Tensor]) -> None:
        """A weight that a NaN has reached is found an iteration, or a checkpoint, too late."""
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
            f"the gradient of {name} (and of {int((~finite).sum()) - 1} others) not finite in"
            f" iteration {self.iter}, though the losses are ({_format_losses(losses)}); {_ADVICE}"
        )


def _format_losses(losses: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())


def split_batch(data: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """``parts`` batches of consecutive images, equally many in each.

    Args:
        data: Tensors and lists, all B long.
        parts: A, a divisor of B.

    Raises:
        ValueError: A does not divide B.
    """
    if parts == 1:
        return [data]
    size = len(data["images"])
    if size % parts:
        raise ValueError(
            f"a batch of {size} images cannot be cut into SOLVER.ACCUMULATE {parts} equal parts"
        )
    step = size // parts
    return [{k: v[i : i + step] for k, v in data.items()} for i in range(0, size, step)]


def scale_momentum(model: nn.Module, parts: int) -> None:
    """Running statistics go as far in ``parts`` steps as they went in one: 1 - (1 - m)^(1 / A)."""
    if parts == 1:
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = 1 - (1 - module.momentum) ** (1 / parts)


def _amp_dtype(cfg: Any) -> torch.dtype | None:
    amp, device = cfg.SOLVER.AMP, cfg.MODEL.DEVICE
    if not amp.ENABLED:
        return None
    # Older GPUs compute in bfloat16 by a detour that is slower than float32.
    if (
        amp.DTYPE == "bfloat16"
        and device.startswith("cuda")
        and torch.cuda.get_device_capability(device) < (8, 0)
    ):
        raise ValueError(
            f"SOLVER.AMP.DTYPE must be float16 on {torch.cuda.get_device_name(device)}"
            ", which has no bfloat16, got 'bfloat16'"
        )
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}[amp.DTYPE]


def check_norm_groups(cfg: Any, processes: int) -> None:
    """Refuse to compile groups of batch norm of several sizes: inductor's gradients are wrong.

    See :class:`unreid.modeling.ghost_norm.GhostBatchNorm2d`.

    Raises:
        ValueError: such groups.
    """
    group = cfg.MODEL.GHOST_BN
    size = cfg.SOLVER.IMS_PER_BATCH // (processes * cfg.SOLVER.ACCUMULATE)
    if group and size % min(-(-size // group), size // 2):
        raise ValueError(
            f"MODEL.GHOST_BN must cut {size} images into equal groups with"
            f" MODEL.COMPILE True, got {group}"
        )


def compile_backbone(model: nn.Module, backend: str, device: str) -> None:
    """``model.backbone`` by torch.compile, in place: the names of a checkpoint stay as they are.

    The heads, the memory and the losses look at values and sizes that change from batch to batch,
    and cost little: they stay as they are.

    Raises:
        RuntimeError: ``backend`` cannot compile here (no compiler, say).
    """
    probe = torch.compile(lambda x: (x + 1).sum(), backend=backend)
    try:
        probe(torch.zeros(8, device=device))
    except Exception as error:  # whatever a compiler stumbles over
        raise RuntimeError(
            f"MODEL.COMPILE: torch.compile with backend {backend!r} does not work here; set"
            f" MODEL.COMPILE False ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
        ) from error
    model.backbone.compile(backend=backend)  # type: ignore[operator, union-attr]
