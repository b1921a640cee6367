"""Environment report for an issue: ``unreid env``, or ``python -m unreid.env``.

Versions, device, threads and compiled kernels; no host name, no user name, no path. It needs
neither fastreid nor a compiler.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy
import sklearn
import torch
import torchvision

import unreid
from unreid import compat
from unreid.kernels import kernel, variant_of

#: Packages that a run may use in addition to those in results.json.
OPTIONAL = (
    "faiss-cpu",
    "faiss-gpu",
    "scipy",
    "yacs",
    "cython",
    "pillow",
    "matplotlib",
    "jinja2",
    "infomap",
    "onnx",
    "onnxruntime",
    "gdown",
)
#: Environment variables that affect a run and have no private values.
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "CUDA_VISIBLE_DEVICES",
    "UNREID_PURE_PYTHON",
    "UNREID_KERNELS",
)


def kernel_names() -> list[str]:
    """Return the names of all kernels, compiled or not."""
    folder = Path(__file__).parent / "kernels"
    return sorted(path.name.removesuffix("_reference.py") for path in folder.glob("*_reference.py"))


def versions() -> dict[str, str]:
    """Return the versions of packages, the device and the thread count that affect a result."""
    return {
        "unreid": unreid.__version__,
        "fastreid": compat.fastreid_version() or f"not installed: {compat.INSTALL}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
        "faiss": faiss.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": str(torch.get_num_threads()),
    }


def environment() -> dict[str, dict[str, str]]:
    """Return title -> name -> value, in the order of :func:`describe`."""
    known = versions()
    machine = {"device": known.pop("device"), "threads of torch": known.pop("threads")}
    compiled = {}
    for name in kernel_names():
        module = kernel(name)
        compiled[name] = (
            f"compiled: {variant_of(module)}"
            if module
            else "not compiled: the slower implementation in numpy"
        )
    if not all(text.startswith("compiled") for text in compiled.values()):
        compiled["to compile"] = "pip install -e . (needs a C compiler; UNREID_PURE_PYTHON unset)"
    return {
        "versions": known,
        "optional": {name: _version(name) for name in OPTIONAL},
        "machine": {
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "processor": _processor(),
            "cores": f"{_usable_cores()} usable of {os.cpu_count()}",
            **machine,
            "memory": _memory(),
            **_cuda(),
        },
        "variables": {name: os.environ.get(name, "not set") for name in VARIABLES}
        | {"FASTREID_DATASETS": "set" if os.environ.get("FASTREID_DATASETS") else "not set"},
        "kernels": compiled,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return "unknown"
    return f"{total / 2**30:.1f} GiB"


def _cuda() -> dict[str, str]:
    found = {"torch is built for": f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"}
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(number)
            found[f"GPU {number}"] = f"{device.name}, {device.total_memory / 2**30:.1f} GiB"
        found["cuDNN"] = str(torch.backends.cudnn.version())
        found["bfloat16 on GPU"] = str(torch.cuda.is_bf16_supported())
    return found


def describe() -> str:
    """Return :func:`environment` as text."""
    lines = []
    for title, entries in environment().items():
        width = max(map(len, entries))
        lines += [title, *(f"  {name.ljust(width)}  {value}" for name, value in entries.items())]
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the environment report."""
    from unreid.cli import Parser  # imported here, because every run imports this module

    parser = Parser(
        prog="python -m unreid.env", description=f"{__doc__}\nexample:\n  python -m unreid.env"
    )
    parser.parse_args(arguments)
    sys.stdout.write(describe())
    return 0


if __name__ == "__main__":
    sys.exit(main())
