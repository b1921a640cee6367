"""Registries for what fast-reid has none for: labelers and cluster samplers.

A miss lists what exists and suggests the nearest name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from unreid.checks import nearest


class Registry:
    """Name -> object; registers by decorator, and a miss lists what exists.

    Args:
        kind: What the entries are, and the config key that names them, for the errors.
    """

    def __init__(self, kind: str, key: str) -> None:
        self.kind = kind
        self.key = key
        self._entries: dict[str, Any] = {}

    def register(self, name: str | None = None) -> Callable[[Any], Any]:
        """Decorator: register under ``name`` or the object's own name.

        Raises:
            KeyError: the name is taken by another object.
        """

        def decorate(entry: Any) -> Any:
            label = name or entry.__name__
            if label in self._entries and self._entries[label] is not entry:
                raise KeyError(f"a {self.kind} named {label!r} is registered already")
            self._entries[label] = entry
            return entry

        return decorate

    def get(self, name: str) -> Any:
        """The entry called ``name``.

        Raises:
            KeyError: no such entry; the message lists those that exist.
        """
        if name not in self._entries:
            listed = ", ".join(sorted(self._entries)) or "none"
            raise KeyError(
                f"{self.key} must be a registered {self.kind} ({listed}), got {name!r}"
                f"{nearest(name, self._entries)}"
            )
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))


#: ``labeler = LABELER_REGISTRY.get(cfg.UNSUP.LABELER).from_config(cfg, images)``
LABELER_REGISTRY = Registry("labeler", "UNSUP.LABELER")

#: ``sampler = SAMPLER_REGISTRY.get(cfg.DATALOADER.SAMPLER_TRAIN).from_labels(pseudo, camids, ...)``
SAMPLER_REGISTRY = Registry("sampler", "DATALOADER.SAMPLER_TRAIN")
