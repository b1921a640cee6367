"""One optimiser step of training."""

from __future__ import annotations

import time
from typing import Any

import torch
from fastreid.engine.train_loop import SimpleTrainer
from torch import nn

from unreid.data.loader import SwappableLoader
from unreid.engine.checkpoint import unwrap


class UnsupervisedStep(SimpleTrainer):
    """One iteration: losses, backward, optimiser, then the model's own ``on_step_end``.

    With ``SOLVER.AMP.ENABLED``: float16 and a gradient scaler on a GPU, bfloat16 on a CPU.
    """

    def __init__(
        self, model: nn.Module, loader: SwappableLoader, optimizer: torch.optim.Optimizer,
        param_wrapper: Any, *, amp: bool, device: str,
    ) -> None:
        super().__init__(model, loader, optimizer, param_wrapper)
        self.amp = amp
        self.device_type = device.split(":")[0]
        cuda = self.device_type == "cuda"
        self.amp_dtype = torch.float16 if cuda else torch.bfloat16
        self.grad_scaler = torch.amp.GradScaler("cuda") if amp and cuda else None

    def run_step(self) -> None:
        """Next batch -> losses -> step; a loss that is not finite stops before the step."""
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast(self.device_type, self.amp_dtype, enabled=self.amp):
            loss_dict = self.model(data)
            losses = sum(loss_dict.values())
        self._write_metrics(loss_dict, data_time)
        self.optimizer.zero_grad()
        if self.grad_scaler is None:
            losses.backward()
            self.optimizer.step()
        else:
            self.grad_scaler.scale(losses).backward()
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        unwrap(self.model).on_step_end()
