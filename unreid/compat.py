"""Compatibility workarounds for fast-reid 1.4.0 on current torch and Python.

fast-reid 1.4.0 was written for torch 1.x and Python <= 3.9. It is used unmodified.
:func:`apply` adds missing modules and names before its import; :func:`rebind` replaces one name
after its import. All other incompatibilities are avoided by subclasses: see
``docs/architecture.md``.
"""

from __future__ import annotations

import collections
import collections.abc
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
import types
import warnings
from typing import Any

#: Supported versions of fast-reid.
KNOWN_VERSIONS = ("1.4.0",)
#: fast-reid pins torch 1.13.1, which current Python cannot install, hence ``--no-deps``.
INSTALL = f"pip install --no-deps fastreid=={KNOWN_VERSIONS[-1]}"

_applied = False
_rebound = False


def apply() -> None:
    """Make ``import fastreid`` work; idempotent, imports neither torch nor fastreid.

    A warning is given once if the installed fastreid is not a supported version.
    """
    global _applied
    if _applied:
        return
    _applied = True
    _warn_of_unknown_version()
    # Appended last, so that it is used only if no other finder finds the module.
    sys.meta_path.append(_MissingFastreid())
    # data/build.py: ``from torch._six import string_classes``, removed in torch 2.0.
    if "torch._six" not in sys.modules:
        six = types.ModuleType("torch._six")
        six.string_classes = (str, bytes)  # type: ignore[attr-defined]
        sys.modules["torch._six"] = six
    # data/build.py, evaluation/testing.py: ``from collections import Mapping``, removed in 3.10.
    if not hasattr(collections, "Mapping"):
        collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]
    # fast-reid advises compiling its kernels, which unreid does not use.
    warnings.filterwarnings("ignore", message="Cython .*evaluation", category=UserWarning)
    # Issued by data/transforms/functional.py in every worker of every loader.
    warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
    # resnet.py and other modules import gdown to download ImageNet weights, but fast-reid does not
    # declare this dependency. Most of the addresses are plain URLs that torch.hub can download.
    if "gdown" not in sys.modules and importlib.util.find_spec("gdown") is None:
        gdown = types.ModuleType("gdown")
        # Without a spec, importlib.util.find_spec raises a ValueError.
        gdown.__spec__ = importlib.machinery.ModuleSpec("gdown", None)
        gdown.download = _download  # type: ignore[attr-defined]
        sys.modules["gdown"] = gdown


class _MissingFastreid(importlib.abc.MetaPathFinder):
    """Finder whose error for a missing fastreid contains the install command."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Raise an error for ``fastreid``; return None for every other module.

        Raises:
            ModuleNotFoundError: The package fastreid is not installed.
        """
        if fullname == "fastreid":
            raise ModuleNotFoundError(
                f"unreid needs fastreid, which is not installed: {INSTALL}", name=fullname
            )


def rebind() -> None:
    """Replace names in fast-reid that cannot be set otherwise; idempotent, imports fastreid.

    ``INPUT.AFFINE`` passes ``resample`` and ``fillcolor``, which torchvision renamed to
    ``interpolation`` and ``fill``. A proxy that translates them replaces the name under which
    fast-reid's module imports ``torchvision.transforms``.
    """
    global _rebound
    if _rebound:
        return
    _rebound = True
    import torchvision.transforms as transforms
    from fastreid.data.transforms import build

    proxy = types.ModuleType("torchvision.transforms (renamed arguments translated)")
    proxy.__dict__.update(
        {k: v for k, v in vars(transforms).items() if not k.startswith("__")},
        RandomAffine=_random_affine,
    )
    build.T = proxy


def _random_affine(*args: Any, resample: Any = None, fillcolor: Any = 0, **kwargs: Any) -> Any:
    from torchvision.transforms import InterpolationMode, RandomAffine

    # False meant "nearest" in torchvision < 0.9; fast-reid passes nothing else.
    del resample
    return RandomAffine(*args, interpolation=InterpolationMode.NEAREST, fill=fillcolor, **kwargs)


def _download(url: str, output: str, quiet: bool = True) -> str:
    """Download ``url`` to ``output`` in place of ``gdown.download``, or raise with advice."""
    import torch

    advice = (
        f"put that file at {output}, or name a file of your own:"
        " MODEL.BACKBONE.PRETRAIN_PATH path/to/weights.pth"
    )
    if "drive.google.com" in url:
        raise RuntimeError(f"{url} can only be fetched with gdown: pip install gdown, or {advice}")
    try:
        torch.hub.download_url_to_file(url, output, progress=not quiet)
    except Exception as error:
        if os.path.exists(output):
            os.remove(output)
        raise RuntimeError(
            f"could not download ImageNet weights from {url} ({error}); {advice}"
        ) from error
    return output


def fastreid_version() -> str | None:
    """Return the version of fast-reid from its metadata (``__version__`` is wrong), or None."""
    try:
        return importlib.metadata.version("fastreid")
    except importlib.metadata.PackageNotFoundError:
        return None


def _warn_of_unknown_version() -> None:
    version = fastreid_version()
    if version is not None and version not in KNOWN_VERSIONS:
        warnings.warn(
            f"fastreid {version} is not a version that unreid knows ({', '.join(KNOWN_VERSIONS)});"
            " it may work, or fail to train without an error: compare its results first, or"
            f" {INSTALL}",
            RuntimeWarning,
            stacklevel=3,
        )
