"""Everything this project knows of fast-reid's age, and the outside fix for each trouble.

fast-reid 1.4.0 was written for torch 1.x and Python <= 3.9. It is used unmodified: what it no
longer finds is put where it looks (:func:`apply`, before its import), and the one thing without
a seam is rebound (:func:`rebind`, after its import). All other troubles are met by subclasses and
by not calling the part concerned: see ``docs/architecture.md``.
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

#: The versions of fast-reid whose troubles are known, and met here.
KNOWN_VERSIONS = ("1.4.0",)
#: It pins torch 1.13.1, which no Python of today can install, hence ``--no-deps``.
INSTALL = f"pip install --no-deps fastreid=={KNOWN_VERSIONS[-1]}"

_applied = False
_rebound = False


def apply() -> None:
    """Make ``import fastreid`` work; idempotent, imports neither torch nor fastreid.

    Warns once when the installed fastreid is not a version that this module knows.
    """
    global _applied
    if _applied:
        return
    _applied = True
    _warn_of_unknown_version()
    # Last: asked only for what no other finder has.
    sys.meta_path.append(_MissingFastreid())
    # data/build.py: ``from torch._six import string_classes``, gone since torch 2.0.
    if "torch._six" not in sys.modules:
        six = types.ModuleType("torch._six")
        six.string_classes = (str, bytes)  # type: ignore[attr-defined]
        sys.modules["torch._six"] = six
    # data/build.py, evaluation/testing.py: ``from collections import Mapping``, gone in 3.10.
    if not hasattr(collections, "Mapping"):
        collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]
    # Its kernels are not compiled in site-packages; ours rank instead, so the advice misleads.
    warnings.filterwarnings("ignore", message="Cython .*evaluation", category=UserWarning)
    # data/transforms/functional.py, once in every worker of every loader.
    warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
    # resnet.py and others import gdown inside the function that downloads ImageNet weights, and
    # do not declare it; most of their addresses are plain ones that torch.hub can fetch.
    if "gdown" not in sys.modules and importlib.util.find_spec("gdown") is None:
        gdown = types.ModuleType("gdown")
        # Without a spec, whoever asks find_spec for it gets a ValueError.
        gdown.__spec__ = importlib.machinery.ModuleSpec("gdown", None)
        gdown.download = _download  # type: ignore[attr-defined]
        sys.modules["gdown"] = gdown


class _MissingFastreid(importlib.abc.MetaPathFinder):
    """Makes ``import fastreid`` name the command that installs it, where it is not installed."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Raise for ``fastreid``; None for every other module.

        Raises:
            ModuleNotFoundError: fastreid is not installed.
        """
        if fullname == "fastreid":
            raise ModuleNotFoundError(f"unreid needs fastreid, which is not installed: {INSTALL}",
                                      name=fullname)


def rebind() -> None:
    """Replace what fast-reid offers no seam for; idempotent, imports fastreid.

    ``INPUT.AFFINE`` passes ``resample`` and ``fillcolor``, which torchvision renamed to
    ``interpolation`` and ``fill``: the module's name for torchvision.transforms becomes a proxy
    that translates them.
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
    """Stand-in for ``gdown.download``: fetch ``url`` to ``output`` or say what to do instead."""
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
        raise RuntimeError(f"could not download ImageNet weights from {url} ({error}); {advice}") \
            from error
    return output


def fastreid_version() -> str | None:
    """The installed version of fast-reid from its metadata (``__version__`` lies), or None."""
    try:
        return importlib.metadata.version("fastreid")
    except importlib.metadata.PackageNotFoundError:
        return None


def _warn_of_unknown_version() -> None:
    version = fastreid_version()
    if version is not None and version not in KNOWN_VERSIONS:
        warnings.warn(
            f"fastreid {version} is not a version that unreid knows ({', '.join(KNOWN_VERSIONS)});"
            " it may work, or train nothing without a word: compare its results first, or"
            f" {INSTALL}",
            RuntimeWarning,
            stacklevel=3,
        )
