"""Registries of labelers and batch samplers; the error for an unknown name lists the names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fastreid.utils.registry import Registry as FastReIDRegistry

from unreid.checks import nearest


class Registry(FastReIDRegistry):
    """fast-reid's registry, whose error for an unknown name lists all names and the nearest one.

    Args:
        kind: Kind of the entries, for error messages.
        key: Config key whose value is the name of an entry.
    """

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(kind)
        self.key = key

    def register(self, obj: Any = None) -> Any:
        """Register an object under its own name or, as a decorator, under a given name.

        ``@REGISTRY.register()``, ``@REGISTRY.register("name")`` or ``REGISTRY.register(obj)``.

        Raises:
            KeyError: Another object is registered under this name.
        """
        if obj is not None and not isinstance(obj, str):
            return self._add(obj.__name__, obj)
        name = obj

        def decorate(entry: Any) -> Any:
            return self._add(name or entry.__name__, entry)

        decorator: Callable[[Any], Any] = decorate
        return decorator

    def _add(self, name: str, entry: Any) -> Any:
        if self._obj_map.get(name, entry) is not entry:
            raise KeyError(f"a {self._name} named {name!r} is registered already")
        self._obj_map[name] = entry
        return entry

    def get(self, name: str) -> Any:
        """Return the entry called ``name``.

        Raises:
            KeyError: There is no such entry; the message lists those that exist.
        """
        if name not in self._obj_map:
            listed = ", ".join(self) or "none"
            raise KeyError(
                f"{self.key} must be a registered {self._name} ({listed}), got {name!r}"
                f"{nearest(name, self._obj_map)}"
            )
        return self._obj_map[name]

    def __contains__(self, name: str) -> bool:
        return name in self._obj_map

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._obj_map))


#: ``labeler = LABELER_REGISTRY.get(cfg.UNSUP.LABELER).from_config(cfg, images)``
LABELER_REGISTRY = Registry("labeler", "UNSUP.LABELER")

#: ``sampler = SAMPLER_REGISTRY.get(cfg.DATALOADER.SAMPLER_TRAIN).from_labels(pseudo, camids, ...)``
SAMPLER_REGISTRY = Registry("sampler", "DATALOADER.SAMPLER_TRAIN")
