"""Model fingerprint: a hash of everything that determines features, to keep models apart."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn

from unreid.modeling.backbone_config import KEYS, TIMM

#: Settings without effect on features: source of weights, device, memory layout.
_IGNORED = {
    "WEIGHTS",
    "DEVICE",
    "PRETRAIN",
    "PRETRAIN_PATH",
    "CHANNELS_LAST",
    "LOSSES",
    "GHOST_BN",
    "FREEZE_LAYERS",
    "QUEUE_SIZE",
}


#: The same of timm's networks, which have other keys beside that other backbones do not read.
_TRAINING_ONLY = {"DROP_PATH", "CHECKPOINTING", "FREEZE_STEM"}


def _plain(node: Any, ignored: set[str]) -> Any:
    if isinstance(node, dict):
        return {k: _plain(v, ignored) for k, v in node.items() if k not in ignored}
    return list(node) if isinstance(node, tuple) else node


def fingerprint(cfg: Any, model: nn.Module, *, flip: bool) -> str:
    """Return a hash of the weights and of all settings that affect features.

    Args:
        cfg: Uses ``MODEL.*``, ``INPUT.SIZE_TEST`` and ``INPUT.CROP``, without the source of the
            weights and the device.
        model: Uses the complete state, so further training changes the fingerprint.
        flip: Whether horizontal-flip test-time augmentation is on.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    ignored = _IGNORED | (_TRAINING_ONLY if cfg.MODEL.BACKBONE.NAME == TIMM else set(KEYS))
    settings = {
        "model": _plain(cfg.MODEL, ignored),
        "size": list(cfg.INPUT.SIZE_TEST),
        "crop": _plain(cfg.INPUT.CROP, _IGNORED),
        "flip": flip,
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # Hash bytes, because numpy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
