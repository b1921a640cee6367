"""What keeps the models of several processes one model: gradients, norms, seeds, equal batches.

All of it is nothing with one process.

Notation: W processes.
"""

from __future__ import annotations

import inspect
import zlib
from typing import Any

import numpy as np
import torch
from fastreid.utils.env import seed_all_rng
from torch import distributed, nn

from unreid.contracts import ReIDModel
from unreid.engine.distributed import all_gather, rank, world_size


def average_norm_statistics(model: nn.Module) -> None:
    """Let every batch norm have the mean of all processes' running statistics.

    They follow x <- (1 - m) x + m s, which is linear: averaged once, however late, they are what
    they were with s averaged in every step, as ``MODEL.GHOST_BN`` has it within one process.
    """
    if world_size() == 1:
        return
    norms = [
        m
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    buffers = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
    if not buffers:
        return
    flat = torch.cat([b.reshape(-1) for b in buffers])
    distributed.all_reduce(flat)
    flat /= world_size()
    for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers])):
        buffer.copy_(part.view_as(buffer))


def synchronize_replicas(model: nn.Module) -> list[str]:
    """Give every process rank 0's weights and buffers where they differ; the names of those.

    They never should: memories are moved by the batches of all processes, and gradients are means.
    Different GPUs round differently, and a model may keep something that only one process saw.
    """
    if world_size() == 1:
        return []
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    sums = {
        k: zlib.crc32(v.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        for k, v in tensors.items()
        if v.numel()
    }
    everywhere = all_gather(sums)
    differing = [k for k in sums if any(other.get(k) != sums[k] for other in everywhere)]
    different = sorted({k for names in all_gather(differing) for k in names})
    for name in different:
        distributed.broadcast(tensors[name].data, 0)
    return different


def seed_replicated(seed: int, epoch: int) -> None:
    """Every process draws the same from here on: what a model draws for new labels. Nothing is
    touched where there is one process."""
    if world_size() > 1:
        seed_all_rng(_mixed(seed, epoch, 0))


def seed_per_rank(seed: int, epoch: int) -> None:
    """Every process draws its own from here on: augmentation, dropout. It follows from the epoch,
    so that a resumed run goes on alike."""
    if world_size() > 1:
        seed_all_rng(_mixed(seed, epoch, 1 + rank()))


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def wrap_ddp(model: ReIDModel) -> nn.Module:
    """The model with its gradients averaged over all processes, which start from rank 0's weights.

    Buffers are left alone: a memory is the same everywhere by construction, and batch norms meet in
    :func:`average_norm_statistics`.
    """
    if world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    kind = nn.parallel.DistributedDataParallel
    # Called so since torch 2.10 or thereabouts; with either name buffers stay this process' own.
    synced = "forward_sync_buffers" in inspect.signature(kind).parameters
    apart: dict[str, Any] = {"forward_sync_buffers" if synced else "broadcast_buffers": False}
    wrapped = kind(
        model,
        device_ids=[torch.cuda.current_device()] if on_gpu else None,
        find_unused_parameters=model.find_unused_parameters,
        **apart,
    )
    # At construction it copies rank 0's weights; not every version copies buffers, too.
    for buffer in model.buffers():
        if buffer.numel():
            distributed.broadcast(buffer, 0)
    return wrapped


def check_global_batch(cfg: Any, batch: int, instances: int, key: str, instances_key: str) -> None:
    """Refuse a batch that cannot be dealt out to all processes as whole clusters.

    Raises:
        ValueError: names both keys and the number of processes.
    """
    parts = world_size() * cfg.SOLVER.ACCUMULATE
    if world_size() > 1 and (batch % (parts * instances) or batch < 2 * parts):
        accumulated = f" and SOLVER.ACCUMULATE {cfg.SOLVER.ACCUMULATE}"
        raise ValueError(
            f"{key} is the batch of all processes together: it must be a multiple of"
            f" {max(instances, 2) * parts} with {world_size()} processes"
            f"{accumulated if cfg.SOLVER.ACCUMULATE > 1 else ''}, for whole clusters of"
            f" {instances_key} ({instances}), got {batch}"
        )


def check_main_global_batch(cfg: Any) -> None:
    """:func:`check_global_batch` of the main stage's batch."""
    check_global_batch(
        cfg,
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.DATALOADER.NUM_INSTANCE,
        "SOLVER.IMS_PER_BATCH",
        "DATALOADER.NUM_INSTANCE",
    )
