"""Warn about versions of JAX and torch that fail or are very slow together on a GPU."""

from __future__ import annotations

import re
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import torch

CUDA_MAJORS = (12, 13)


def version_of(package: str) -> str:
    """Return the installed version of a package, "unknown" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


class Installed(NamedTuple):
    """List the installed versions that decide whether JAX and torch work together.

    Attributes:
        jaxlib: Version of jaxlib.
        jax_cuda: CUDA major versions that JAX has plugins for.
        torch_cuda: CUDA major version that torch was built for; None without CUDA.
        cudnn: CUDA major versions that a cuDNN is installed for.
    """

    jaxlib: str
    jax_cuda: tuple[int, ...]
    torch_cuda: int | None
    cudnn: tuple[int, ...]


def installed() -> Installed:
    """Read the versions that are installed here."""
    return Installed(
        jaxlib=version("jaxlib"),
        jax_cuda=_majors("jax-cuda{}-plugin"),
        torch_cuda=int(torch.version.cuda.partition(".")[0]) if torch.version.cuda else None,
        cudnn=_majors("nvidia-cudnn-cu{}"),
    )


def problems(found: Installed, *, renderer: str) -> list[str]:
    """List the known problems of these versions on a GPU, one clause each."""
    clauses = []
    if found.torch_cuda is not None and set(found.jax_cuda) - {found.torch_cuda}:
        plugins = " and ".join(map(str, found.jax_cuda))
        clauses.append(f"torch is built for CUDA {found.torch_cuda} and JAX for CUDA {plugins}")
    if len(found.cudnn) > 1:
        majors = " and ".join(map(str, found.cudnn))
        clauses.append(f"the cuDNN packages for CUDA {majors} overwrite each other in one folder")
    if renderer == "synthpix" and (0, 10, 2) <= _release(found.jaxlib) <= (0, 11, 0):
        clauses.append(
            f"jaxlib {found.jaxlib} makes renderer='synthpix' very slow (0.11.1 does not, and the "
            "default renderer is not affected)"
        )
    return clauses


def warn_of_problems(*, renderer: str) -> None:
    """Warn once if the installed versions are known to fail or to be very slow on a GPU."""
    if clauses := problems(installed(), renderer=renderer):
        warnings.warn(
            f"On this GPU {'; '.join(clauses)}: install a combination from docs/install.md.",
            stacklevel=3,
        )


def _majors(package: str) -> tuple[int, ...]:
    found = []
    for major in CUDA_MAJORS:
        try:
            version(package.format(major))
        except PackageNotFoundError:
            continue
        found.append(major)
    return tuple(found)


def _release(text: str) -> tuple[int, ...]:
    numbers = re.match(r"\d+(\.\d+)*", text)
    assert numbers is not None
    return tuple(map(int, numbers[0].split(".")))
