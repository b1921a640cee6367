"""Files of weights: state dicts inside of containers, and prefixes of their names.

[0] He et al., Momentum Contrast, CVPR 2020: ``state_dict``, ``module.encoder_q.``
[1] Caron et al., DINO, ICCV 2021: ``teacher``, ``module.backbone.``
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unreid.reading.tensors import check_state_dict, load_tensors

#: Keys that a state dict lies under, in this order: the teacher of DINO [1] before its student.
CONTAINERS = ("teacher", "state_dict", "model", "module", "network", "net")
#: Prefixes of names that a network does not have itself, with the part that they select.
PREFIXES = ("module.", "encoder_q.", "encoder.", "backbone.", "network.", "model.", "base.")


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, and how they were found in a file.

    Attributes:
        tensors: Name -> tensor.
        route: Containers and prefixes that were taken off, such as ``("teacher", "backbone.")``.
        dropped: Names outside of the prefixes, such as a momentum encoder.
    """

    tensors: dict[str, Tensor]
    route: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def read_weights(path: str | os.PathLike[str], what: str = "weights") -> Any:
    """Return the content of a .pth or .safetensors file; no code of the file is run.

    Args:
        path: The file.
        what: Kind of the file, or its config key, in an error message.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged, no file of tensors, or needs code to be read.
    """
    path = os.fspath(path)
    if not path.endswith(".safetensors"):
        return load_tensors(path, what)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{what} {path}: no such file")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"{what} {path} cannot be loaded: it is damaged, or no safetensors file ({error})"
        ) from error


def unwrap(content: Any, path: str, what: str = "weights") -> StateDict:
    """Return the state dict inside the content of a file.

    Args:
        content: Content of the file, see :func:`read_weights`.
        path: The file, for messages.
        what: Kind of the file, for messages.

    Raises:
        ValueError: The content has no state dict.
    """
    route: list[str] = []
    while isinstance(content, Mapping) and not _has_tensors(content):
        inside = [key for key in CONTAINERS if isinstance(content.get(key), Mapping)]
        if not inside:
            break
        route.append(inside[0])
        content = content[inside[0]]
    if not isinstance(content, Mapping) or not _has_tensors(content):
        held = (
            ", ".join(repr(key) for key in list(content)[:5]) or "nothing"
            if isinstance(content, Mapping)
            else f"a {type(content).__name__}"
        )
        raise ValueError(
            f"{what} {path} must hold weights by name, at its top or under one of"
            f" {', '.join(CONTAINERS)}; it holds {held}"
        )
    check_state_dict(path, content)
    return StateDict(dict(content), tuple(route))


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def strip_prefixes(state: StateDict, own: Collection[str]) -> StateDict:
    """Take off the prefixes of names that no name of the network has.

    A prefix selects: of ``encoder_q.*``, ``encoder_k.*`` and ``queue`` only the first remains.

    Args:
        state: Of :func:`unwrap`.
        own: Names of the network's own state dict.
    """
    tensors, route, dropped = state.tensors, list(state.route), list(state.dropped)
    while True:
        for prefix in PREFIXES:
            inside = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            if inside and not any(name.startswith(prefix) for name in own):
                dropped += [k for k in tensors if not k.startswith(prefix)]
                route.append(prefix)
                tensors = inside
                break
        else:
            return StateDict(tensors, tuple(route), tuple(dropped))


def check_values(state: Mapping[str, Tensor], path: str, what: str) -> None:
    """Refuse tensors that a network cannot start from.

    Half precision is refused although it can be widened: running variances and small weights of a
    trained network are outside of its range, and a file of it does not say what was lost.

    Raises:
        ValueError: A sparse tensor, values in 16 bits or fewer, or values that are not finite.
    """
    for name, value in state.items():
        if value.layout != torch.strided:
            raise ValueError(f"{what} {path}: {name} must be a dense tensor, got {value.layout}")
        if value.is_floating_point() and value.element_size() < 4:
            raise ValueError(
                f"{what} {path}: {name} must be float32, got {str(value.dtype)[6:]}; take the"
                " file in full precision, or convert it where the loss is known to be small:"
                " {name: value.float() for name, value in state.items()}"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{what} {path}: {name} must be finite, and is not")
