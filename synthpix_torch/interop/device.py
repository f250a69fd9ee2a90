"""Choose the one device of this process on which JAX and torch both work."""

from __future__ import annotations

import os
import warnings

import jax
import torch
from jax._src import xla_bridge

from synthpix_torch.interop.versions import CUDA_MAJORS, installed

MEMORY_SETTINGS = (
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_CLIENT_MEM_FRACTION",
)


def choose_device(
    device: str | torch.device | None = None, device_ids: tuple[int, ...] = ()
) -> jax.Device:
    """Choose the device that batches are made on and configure JAX to share it with torch.

    If JAX has not started yet, configure it to allocate memory on demand and to open no other GPU.

    Args:
        device: "cpu", "cuda" or "cuda:1". Default: the GPU that torch uses (under torchrun the GPU
            with the number LOCAL_RANK) if torch and JAX can both use it, else the CPU.
        device_ids: synthpix's key, at most one number; used if `device` is None.

    Returns:
        A JAX device whose memory torch can share.

    Raises:
        ValueError: The device does not exist.
        RuntimeError: A GPU was requested that JAX or torch cannot use.
    """
    if device is not None and str(device).partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda', not {str(device)!r}.")
    wanted = None if device is None else torch.device(device)
    if wanted is not None and wanted.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"device={str(wanted)!r} needs a GPU and a torch built with CUDA: install that torch, "
            "or use device='cpu'."
        )
    cpu_wanted = wanted is not None and wanted.type == "cpu"
    number_on_cpu = device_ids[0] if device_ids and not wanted else 0
    if not torch.cuda.is_available():
        return _numbered(jax.local_devices(backend="cpu"), number_on_cpu)
    index = _cuda_index(wanted, device_ids)
    # For the CPU too: JAX starts on every visible GPU, even if only its CPU is used.
    _prepare_jax_for_cuda(index, warn=not cpu_wanted)
    if cpu_wanted:
        return jax.local_devices(backend="cpu")[0]
    platforms = jax.config.values["jax_platforms"]
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        if wanted is not None:
            raise RuntimeError(
                f"JAX_PLATFORMS={platforms} prevents JAX from using the GPU: unset it for "
                f"device={str(wanted)!r}, or use device='cpu'."
            )
        return jax.local_devices(backend="cpu")[0]
    try:
        gpus = jax.local_devices(backend="cuda")
    except RuntimeError as error:
        reason = _why_jax_has_no_gpu(error)
        if wanted is not None:
            raise RuntimeError(f"{reason}, or use device='cpu'.") from error
        warnings.warn(f"{reason}. Until then batches are made on the CPU.", stacklevel=3)
        return jax.local_devices(backend="cpu")[0]
    for gpu in gpus:
        if gpu.local_hardware_id == index:
            return gpu
    raise ValueError(
        f"JAX has started without GPU {index}: build the dataset before anything else uses JAX, "
        f"or add {index} to jax_cuda_visible_devices."
    )


def processes_of_jax() -> int:
    """Count the processes that share JAX's devices; more than one under jax.distributed."""
    count: int = jax.process_count()
    return count


def _why_jax_has_no_gpu(error: RuntimeError) -> str:
    found = installed()
    if found.jax_cuda:
        return f"JAX's CUDA plugin does not start ({error}): fix its installation"
    major = found.torch_cuda or max(CUDA_MAJORS)
    return f"JAX has no CUDA plugin: install synthpix_torch[cuda{major}], as torch has CUDA {major}"


def _numbered(devices: list[jax.Device], number: int) -> jax.Device:
    if number >= len(devices):
        raise ValueError(
            f"device_ids requests device {number}, but only {len(devices)} exist: use [0], "
            "or remove device_ids."
        )
    return devices[number]


def _cuda_index(wanted: torch.device | None, device_ids: tuple[int, ...]) -> int:
    if wanted is not None and wanted.index is not None:
        index = wanted.index
    elif wanted is None and device_ids:
        index = device_ids[0]
    else:
        index = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
        if index == 0:
            # Under torchrun the process often has not selected its GPU yet.
            index = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
    if index >= torch.cuda.device_count():
        raise ValueError(f"There is no GPU {index}: torch sees {torch.cuda.device_count()}.")
    return index


def _prepare_jax_for_cuda(index: int, *, warn: bool) -> None:
    chosen = any(name in os.environ for name in MEMORY_SETTINGS)
    if not xla_bridge.backends_are_initialized():
        if not chosen:
            os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        if jax.config.values["jax_cuda_visible_devices"] == "all":
            jax.config.update("jax_cuda_visible_devices", str(index))
    elif warn and not chosen and xla_bridge.backends().keys() & {"cuda", "gpu"}:
        warnings.warn(
            "JAX has already started and preallocated most of the GPU's memory, which torch cannot "
            "use: build the dataset before anything else uses JAX, or set "
            "XLA_PYTHON_CLIENT_PREALLOCATE=false.",
            stacklevel=4,
        )
