"""Compile the kernels and put the projects into a wheel; everything else is in pyproject.toml.

A kernel that cannot be compiled does not stop the installation: its numpy implementation is used.
Rebuild in a checkout with ``python setup.py build_ext --inplace``.
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
from setuptools.command.build_py import build_py

KERNELS = Path("unreid/kernels")
#: Variant -> flags beside those of the baseline. ``unreid.kernels`` loads a variant only where
#: torch reports the same instructions: AVX2 and FMA; and AVX-512 F, BW, DQ and VL beside them.
VARIANTS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}
#: Kernels that a variant was measured to make faster; the others are compiled as baseline alone.
HOT = ("dbscan", "jitter", "knn", "ranking")
#: What a wheel takes of ``projects/X``, and where it goes (``unreid.projects.BUNDLED``).
PROJECT_FILES = ("*/**/*.py", "configs/**/*.yml", "README.md")
BUNDLED = Path("unreid/bundled_projects")


def compiles(flags: list[str]) -> bool:
    """Return whether the C compiler accepts these flags and links a program with them."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.c"
        source.write_text("int main(void) { return 0; }\n")
        command = [os.environ.get("CC", "cc"), *flags, str(source), "-o", str(Path(folder) / "a")]
        try:
            return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


class OptionalBuild(build_ext):
    """Build what can be built, on all cores, and report what cannot."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count() or 1

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:  # any compiler failure leaves the numpy implementation
            ext.optional = True  # or copying the result into the source tree would miss it
            sys.stderr.write(f"unreid: {ext.name} not built ({error}); numpy takes its place\n")


class BuildWithProjects(build_py):
    """Add the projects and their configs to a wheel; an editable install uses ``projects/``."""

    def run(self) -> None:
        super().run()
        for source, target in self._projects().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target, preserve_mode=False)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *self._projects()]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self._projects().values()]

    def _projects(self) -> dict[str, str]:
        """File in the source tree -> file in the build folder."""
        if self.editable_mode:
            return {}
        root = Path("projects")
        found = {file for pattern in PROJECT_FILES for file in root.glob(f"*/{pattern}")}
        return {
            str(file): str(Path(self.build_lib) / BUNDLED / file.relative_to(root))
            for file in sorted(found)
        }


def kernel_extensions() -> list[Extension]:
    """Return the extensions of all kernels: a baseline for any processor, and the variants.

    A variant of the kernels ``HOT`` is compiled from the C code of the baseline under the name
    ``unreid.kernels.VARIANT.KERNEL``. No flag refers to the processor of this machine, so that a
    wheel is portable.
    """
    baseline = ["/O2"] if sys.platform == "win32" else ["-O3"]
    openmp = ["-fopenmp"] if compiles(["-fopenmp"]) else []

    def extension(name: str, source: Path, flags: list[str]) -> Extension:
        return Extension(
            name,
            [str(source)],
            include_dirs=[np.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            extra_compile_args=baseline + flags + openmp,
            extra_link_args=openmp,
        )

    sources = sorted(KERNELS.glob("*.pyx"))
    plain = [extension(f"unreid.kernels.{path.stem}", path, []) for path in sources]
    found = cythonize(plain, language_level=3) if plain else []
    for variant, flags in VARIANTS.items():
        if not compiles(flags):  # another architecture or compiler
            continue
        for path in sources:
            if path.stem not in HOT:
                continue
            name = f"unreid.kernels.{variant}.{path.stem}"
            source = variant_source(path.with_suffix(".c"), variant)
            found.append(extension(name, source, flags))
    return found


def variant_source(generated: Path, variant: str) -> Path:
    """Write the C code of a variant, if it is not up to date, and return its file."""
    path = generated.parent / variant / generated.name
    stem = generated.stem
    text = generated.read_text()
    text = text.replace(f'"unreid.kernels.{stem}"', f'"unreid.kernels.{variant}.{stem}"')
    if not path.is_file() or path.read_text() != text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return path


setup(
    ext_modules=kernel_extensions(),
    cmdclass={"build_ext": OptionalBuild, "build_py": BuildWithProjects},
)
