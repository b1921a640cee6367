"""Builds the Cython kernels at install; everything else is in pyproject.toml.

A kernel that cannot be built does not stop the install: its numpy twin takes over.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def compiles(flags: list[str]) -> bool:
    """Whether the C compiler takes these flags and links a program with them."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.c"
        source.write_text("int main(void) { return 0; }\n")
        command = [os.environ.get("CC", "cc"), *flags, str(source), "-o", str(Path(folder) / "a")]
        try:
            return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


class OptionalBuild(build_ext):
    """Builds what can be built and says what cannot."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:  # any compiler failure ends in the numpy twin
            ext.optional = True  # or copying the result into the source tree would miss it
            sys.stderr.write(f"unreid: {ext.name} not built ({error}); numpy takes its place\n")


def flags() -> list[str]:
    """Optimise for the processor at hand (installed from source, so it is the one used)."""
    wanted = ["-O3", "-march=native"] if compiles(["-march=native"]) else ["-O3"]
    return wanted if sys.platform != "win32" else ["/O2"]


optimise = flags()
openmp = ["-fopenmp"] if compiles(["-fopenmp"]) else []
extensions = [
    Extension(
        f"unreid.kernels.{path.stem}",
        [str(path)],
        include_dirs=[np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        extra_compile_args=optimise + openmp,
        extra_link_args=openmp,
    )
    for path in sorted(Path("unreid/kernels").glob("*.pyx"))
]

setup(
    ext_modules=cythonize(extensions, language_level=3) if extensions else [],
    cmdclass={"build_ext": OptionalBuild},
)
