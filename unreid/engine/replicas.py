"""Keep the model replicas of several processes equal: gradients, batch norm, seeds, batch sizes.

With a single process none of these functions has an effect.

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
    """Average the running statistics of batch norm over all processes.

    Running statistics follow x <- (1 - m) x + m s, which is linear in the batch statistics s.
    Averaging x once per epoch therefore equals averaging s in every step, which is what
    ``MODEL.GHOST_BN`` does within one process.
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
    """Broadcast the weights and buffers of rank 0 that differ between processes.

    Differences are not expected: gradients are averaged, and memories are updated by the batches of
    all processes. They occur if GPUs of different types round differently, or if a model stores
    something that only one process computed.

    Returns:
        Sorted names of the parameters and buffers that differed.
    """
    if world_size() == 1:
        return []
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    checksums = {
        k: zlib.crc32(v.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        for k, v in tensors.items()
        if v.numel()
    }
    by_rank = all_gather(checksums)
    local = [k for k in checksums if any(other.get(k) != checksums[k] for other in by_rank)]
    differing = sorted({k for names in all_gather(local) for k in names})
    for name in differing:
        distributed.broadcast(tensors[name].data, 0)
    return differing


def seed_replicated(seed: int, epoch: int) -> None:
    """Seed all global generators with the same value in every process.

    Used while a model prepares for new labels, so that all replicas sample the same values.
    """
    if world_size() > 1:
        seed_all_rng(_combine_seeds(seed, epoch, 0))


def seed_per_rank(seed: int, epoch: int) -> None:
    """Seed all global generators with a value of this rank: for augmentation and dropout.

    The value depends on the epoch, so a resumed run continues with the same random numbers.
    """
    if world_size() > 1:
        seed_all_rng(_combine_seeds(seed, epoch, 1 + rank()))


def _combine_seeds(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def wrap_ddp(model: ReIDModel) -> nn.Module:
    """Wrap the model in DistributedDataParallel; all processes start from the weights of rank 0.

    Buffers are not synchronised in each step: a memory is replicated by construction, and
    :func:`average_norm_statistics` averages batch norm.
    """
    if world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    ddp = nn.parallel.DistributedDataParallel
    # Recent releases of torch (from about 2.10) renamed the argument that broadcasts buffers.
    renamed = "forward_sync_buffers" in inspect.signature(ddp).parameters
    no_sync: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    wrapped = ddp(
        model,
        device_ids=[torch.cuda.current_device()] if on_gpu else None,
        find_unused_parameters=model.find_unused_parameters,
        **no_sync,
    )
    # Construction broadcasts the weights of rank 0; some versions of torch leave buffers out.
    for buffer in model.buffers():
        if buffer.numel():
            distributed.broadcast(buffer, 0)
    return wrapped


def check_global_batch(cfg: Any, batch: int, instances: int, key: str, instances_key: str) -> None:
    """Check that the global batch can be split among all processes in whole clusters.

    Args:
        cfg: The config.
        batch: Global batch size: images of all processes together.
        instances: Images per cluster in a batch.
        key: Config key of ``batch``, for the message.
        instances_key: Config key of ``instances``, for the message.

    Raises:
        ValueError: The batch cannot be split; names both keys and the number of processes.
    """
    parts = world_size() * cfg.SOLVER.ACCUMULATE
    if world_size() > 1 and (batch % (parts * instances) or batch < 2 * parts):
        accumulated = f" and SOLVER.ACCUMULATE {cfg.SOLVER.ACCUMULATE}"
        raise ValueError(
            f"{key} is the global batch size: it must be a multiple of"
            f" {max(instances, 2) * parts} with {world_size()} processes"
            f"{accumulated if cfg.SOLVER.ACCUMULATE > 1 else ''}, for whole clusters of"
            f" {instances_key} ({instances}), got {batch}"
        )


def check_main_global_batch(cfg: Any) -> None:
    """Call :func:`check_global_batch` for the batch of the main stage.

    Raises:
        ValueError: See :func:`check_global_batch`.
    """
    check_global_batch(
        cfg,
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.DATALOADER.NUM_INSTANCE,
        "SOLVER.IMS_PER_BATCH",
        "DATALOADER.NUM_INSTANCE",
    )
