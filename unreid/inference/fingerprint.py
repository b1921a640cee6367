"""What a model's features depend on, as a few hex digits: features of two models never mix."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn

#: Settings that change no feature: where weights came from, the device, the memory layout.
_APART = {"WEIGHTS", "DEVICE", "PRETRAIN", "PRETRAIN_PATH", "CHANNELS_LAST", "LOSSES", "GHOST_BN",
          "FREEZE_LAYERS", "QUEUE_SIZE"}


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _plain(v) for k, v in node.items() if k not in _APART}
    return list(node) if isinstance(node, tuple) else node


def fingerprint(cfg: Any, model: nn.Module, *, flip: bool) -> str:
    """Sixteen hex digits of the weights and of all settings between a file and its feature.

    Args:
        cfg: ``MODEL.*``, ``INPUT.SIZE_TEST`` and ``INPUT.CROP`` count; where weights came from
            and the device do not.
        model: Its whole state counts, so that any further training gives another one.
        flip: Whether a feature is the mean with that of the mirror image.
    """
    digest = hashlib.sha256()
    settings = {"model": _plain(cfg.MODEL), "size": list(cfg.INPUT.SIZE_TEST),
                "crop": _plain(cfg.INPUT.CROP), "flip": flip}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes whatever the type: numpy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
