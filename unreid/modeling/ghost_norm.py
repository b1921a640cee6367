"""Ghost batch norm: statistics over groups of a few images, whatever the batch and the devices.

[0] Hoffer, Hubara, Soudry, Train longer, generalize better, NeurIPS 2017, arXiv 1705.08741.

Published unsupervised Re-ID runs on four GPUs without synchronised statistics, so each batch norm
saw 16 to 64 images. One GPU with the whole batch is another model (fast-reid's and Cluster
Contrast's users lose 20 mAP). ``MODEL.GHOST_BN`` makes the group explicit.

Notation: B images, C channels, G groups.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GhostBatchNorm2d(nn.BatchNorm2d):
    """Batch norm in training over consecutive groups of ``group_size`` images.

    A batch is cut into ceil(B / group_size) nearly equal groups of consecutive images, as
    DataParallel cuts it, but never into a group of one, which has no variance. The running
    statistics take one step a batch, towards the mean of the groups' statistics. In evaluation it
    is plain batch norm.

    Args:
        norm: The batch norm whose parameters, buffers and settings are taken over (shared).
        group_size: Images per group, >= 2.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, norm: nn.BatchNorm2d, group_size: int) -> None:
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        self.group_size = group_size
        self.weight, self.bias = norm.weight, norm.bias
        assert norm.running_mean is not None and norm.running_var is not None
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        assert norm.num_batches_tracked is not None
        self.num_batches_tracked = norm.num_batches_tracked

    def forward(self, input: Tensor) -> Tensor:
        groups = min(-(-len(input) // self.group_size), len(input) // 2)
        if not self.training or groups <= 1:
            return super().forward(input)
        if torch.compiler.is_compiling() and len(input) % groups == 0:
            return self._at_once(input, groups)
        outputs, means, variances = [], [], []
        for chunk in input.tensor_split(groups):
            # Momentum 1 writes this group's own statistics into scratch buffers.
            mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
            outputs.append(
                F.batch_norm(chunk, mean, var, self.weight, self.bias, True, 1.0, self.eps)
            )
            means.append(mean)
            variances.append(var)
        with torch.no_grad():
            self.running_mean.lerp_(torch.stack(means).mean(dim=0), self.momentum)
            self.running_var.lerp_(torch.stack(variances).mean(dim=0), self.momentum)
            self.num_batches_tracked.add_(1)
        return torch.cat(outputs)

    def _at_once(self, input: Tensor, groups: int) -> Tensor:
        """All groups in one formula: what inductor makes of the loop has wrong gradients (torch
        2.15, CPU), and this is what it can fuse."""
        each = input.float().reshape(groups, -1, *input.shape[1:])
        var, mean = torch.var_mean(each, (1, 3, 4), correction=0, keepdim=True)
        shape = (1, 1, -1, 1, 1)
        normal = (each - mean) * torch.rsqrt(var + self.eps)
        output = normal * self.weight.view(shape) + self.bias.view(shape)
        with torch.no_grad():
            count = each[0, :, 0].numel()
            unbiased = var.flatten(1) * (count / (count - 1))
            self.running_mean.lerp_(mean.flatten(1).mean(dim=0), self.momentum)
            self.running_var.lerp_(unbiased.mean(dim=0), self.momentum)
            self.num_batches_tracked.add_(1)
        return output.reshape(input.shape).to(input.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, group_size={self.group_size}"


def use_ghost_norm(module: nn.Module, group_size: int) -> int:
    """Replace every trainable 2-d batch norm inside ``module``; returns how many there were.

    Synchronised, frozen, instance and group norms stay as they are.
    """
    replaced = 0
    for name, child in module.named_children():
        if isinstance(child, GhostBatchNorm2d):
            continue
        if isinstance(child, nn.BatchNorm2d) and child.track_running_stats:
            setattr(module, name, GhostBatchNorm2d(child, group_size))
            replaced += 1
        else:
            replaced += use_ghost_norm(child, group_size)
    return replaced
