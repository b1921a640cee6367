"""Fit a state dict to a network: which entries match, and whether they cover the network.

Threshold: every parameter and every buffer of the backbone must be in the file with its shape.
Exceptions are the batch counters of batch norms and the non-local blocks of fast-reid, which start
as an identity and which no published file has. Classifiers, necks and other entries that the
backbone does not have are left out and named in the log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from unreid.weights.container import StateDict, check_values, read_weights, strip_prefixes, unwrap
from unreid.weights.families import adapt

logger = logging.getLogger("fastreid.unreid.weights")

#: Entries of a backbone that a file need not have.
OPTIONAL = re.compile(r"(.*\.)?num_batches_tracked|NL_\d+\..*")


@dataclass(frozen=True)
class Fit:
    """Comparison of a state dict with a network.

    Attributes:
        matched: Entries to load: name -> tensor.
        total: Number of entries of the network, without batch counters.
        missing: Names that only the network has.
        unexpected: Names that only the file has.
        mismatched: Name -> "(found shape), not (shape of the network)".
    """

    matched: dict[str, Tensor]
    total: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: dict[str, str]

    @property
    def lacking(self) -> tuple[str, ...]:
        """Names that are missing or of another shape, and that a backbone cannot do without."""
        names = (*self.missing, *self.mismatched)
        return tuple(name for name in names if not OPTIONAL.fullmatch(name))

    def describe(self) -> str:
        """Return ``loaded n of m tensors``, with the names of the others."""
        loaded = sum(not name.endswith("num_batches_tracked") for name in self.matched)
        parts = [f"loaded {loaded} of {self.total} tensors"]
        shapes = [f"{name} {text}" for name, text in self.mismatched.items()]
        for kind, names in (
            ("missing", self.missing),
            ("of another shape", shapes),
            ("unexpected, left out", self.unexpected),
        ):
            if names:
                parts.append(f"{kind}: {_listed(names)}")
        return "; ".join(parts)


def _listed(names: list[str] | tuple[str, ...], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def compare(network: nn.Module, state: Mapping[str, Tensor]) -> Fit:
    """Return which entries of ``state`` fit ``network`` by name, shape and kind."""
    own = network.state_dict()
    counters = [name for name in own if name.endswith("num_batches_tracked")]
    matched, mismatched = {}, {}
    for name in own.keys() & state.keys():
        found, expected = state[name], own[name]
        if found.shape != expected.shape:
            mismatched[name] = f"{tuple(found.shape)}, not {tuple(expected.shape)}"
        elif found.is_floating_point() != expected.is_floating_point() or found.is_complex():
            mismatched[name] = f"{found.dtype}, not {expected.dtype}"
        else:
            matched[name] = found
    missing = [name for name in own if name not in state and name not in counters]
    unexpected = [name for name in state if name not in own]
    return Fit(
        {name: matched[name] for name in own if name in matched},
        len(own) - len(counters),
        tuple(missing),
        tuple(unexpected),
        {name: mismatched[name] for name in own if name in mismatched},
    )


def fit_state(network: nn.Module, state: StateDict, path: str, what: str = "weights") -> Fit:
    """Fit an unwrapped state dict to a backbone, and refuse one that does not cover it.

    Args:
        network: The backbone; it is not changed.
        state: State dict, see :func:`unreid.weights.container.unwrap`.
        path: The file, for messages.
        what: Kind of the file or config key, for messages.

    Raises:
        ValueError: The file does not cover the backbone (see the module), or has sparse,
            half-precision or non-finite values.
    """
    stripped = strip_prefixes(state, network.state_dict().keys())
    check_values(stripped.tensors, path, what)
    fit = compare(network, adapt(stripped.tensors, network))
    if fit.lacking:
        raise ValueError(
            f"{what} {path} is of another backbone than {type(network).__name__}:"
            f" {fit.describe()}; all tensors of the backbone are needed"
        )
    return fit


def load_backbone(network: nn.Module, path: str, what: str = "weights") -> Fit:
    """Load a file into a backbone in place, and log what was loaded.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is damaged, or see :func:`fit_state`.
    """
    state = unwrap(read_weights(path, what), path, what)
    fit = fit_state(network, state, path, what)
    network.load_state_dict(fit.matched, strict=False)
    logger.info(f"{what} {path}: {fit.describe()}")
    return fit


def inner(backbone: nn.Module) -> nn.Module:
    """Return the network whose names published files have: timm's own inside of our backbone."""
    from unreid.modeling.timm_backbone import TimmBackbone

    return backbone.network if isinstance(backbone, TimmBackbone) else backbone
