"""Compile JAX programs for an NVIDIA H100 on a machine that has none.

Needs JAX's CUDA plugin, and neither a GPU nor a driver: XLA compiles for a description of the
device. Nothing can be run.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

import jax
from jax.experimental import topologies

BYTES_PER_SECOND: Final = 3.35e12
MULTIPROCESSORS: Final = 132
CLOCK: Final = 1.755e9
"""Clock under load in Hz; the data sheet's boost clock is 1.98 GHz."""

L2_SLICES: Final = 96

_TARGET: Final = """
gpu_device_info {
  device_vendor: "NVIDIA Corporation"
  name: "NVIDIA H100 80GB HBM3"
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000
  device_memory_size: 84942979072
  device_address_bits: 64
  ecc_enabled: true
  l2_cache_size: 52428800
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  driver_version: "13.0.0"
  runtime_version: "12.9.0"
  compile_time_toolkit_version: "12.9.0"
  dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@functools.cache
def device() -> jax.Device:
    """Return the H100 that programs are compiled for.

    Raises:
        RuntimeError: JAX's CUDA plugin is not installed.
    """
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=_TARGET, topology="1x1x1"
        )
    except Exception as error:
        raise RuntimeError(
            "To compile for a GPU, JAX needs its CUDA plugin: install synthpix_torch[cuda12]."
        ) from error
    found: jax.Device = topology.devices[0]
    return found


def shapes(arrays: Any) -> Any:
    """Place a tree of arrays or their shapes on the H100, for lowering."""
    mesh = jax.sharding.Mesh([device()], ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.tree.map(
        lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding), arrays
    )


def compile_into(folder: Path, program: Any, *arguments: Any) -> jax.stages.Compiled:
    """Compile a jitted function for the H100; XLA leaves HLO, PTX and launches in a folder.

    Args:
        folder: An empty folder.
        program: What `jax.jit` returned.
        arguments: Arrays or their shapes.
    """
    lowered = program.lower(*shapes(arguments))
    compiled: jax.stages.Compiled = lowered.compile(
        compiler_options={"xla_dump_to": str(folder), "xla_dump_hlo_as_text": True}
    )
    return compiled
