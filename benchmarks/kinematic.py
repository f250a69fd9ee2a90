"""Kinematic flow fields alone, against synthpix and 0.1.0: python -m benchmarks.kinematic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import scipy.fft
from jax import lax
from synthpix.data_sources.kinematic import KinematicDataSource

from benchmarks.core import numbers_of, timed
from benchmarks.report import command_line, interleaved, ratio, spread, table, write
from synthpix_torch.data.kinematic import KinematicFields, KinematicSettings, kinematic_fields
from synthpix_torch.draws import uniform

SCALES = (0.0, 8.0)
WIDTHS = ((0.0, 0.0), (1.0, 1.0), (2.0, 2.0), (5.0, 5.0), (20.0, 20.0), (100.0, 100.0))
USUAL = (5.0, 100.0)
SIZES = {256: 8, 1024: 2}
ROUNDS = 9


class ByCosines(KinematicDataSource):  # type: ignore[misc]
    """The host's fields of 0.1.0: synthpix's, filtered in the DCT-II domain."""

    def _generate_flow_field(self, record_key: int) -> npt.NDArray[np.float32]:
        rng = np.random.default_rng((self._seed, record_key))
        sigma = rng.uniform(*self._filter_sigma_range)
        factor = rng.uniform(*self._scale_factor_range)
        noise = rng.uniform(-1.0, 1.0, size=(*self._image_shape, 2))
        field = np.ascontiguousarray(np.moveaxis(noise, -1, 0))
        down, across = (_cosines(size, sigma) for size in self._image_shape)
        spectrum = scipy.fft.dctn(field, axes=(1, 2), overwrite_x=True, workers=1)
        spectrum *= down[:, None] * across
        field = scipy.fft.idctn(spectrum, axes=(1, 2), overwrite_x=True, workers=1)
        field *= factor / math.sqrt(np.max(field[0] ** 2 + field[1] ** 2))
        flow = np.empty((*self._image_shape, 2), np.float32)
        flow[...] = np.moveaxis(field, 0, -1)
        return flow


def _cosines(size: int, sigma: float) -> npt.NDArray[np.float64]:
    radius = int(4 * sigma + 0.5)
    if radius == 0:
        return np.ones(size)
    distance = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 / sigma**2 * distance**2)
    folded = np.bincount(distance % (2 * size), weights=kernel / kernel.sum(), minlength=2 * size)
    return np.ascontiguousarray(scipy.fft.rfft(folded)[:size].real)


def by_products(size: int, sigmas: tuple[float, float], many: int) -> Callable[[int], Any]:
    """Generate the device's fields of 0.1.0: two products with a full, reflecting filter."""

    def matrix(sigma: jax.Array) -> jax.Array:
        period = 2 * size
        repeats = (int(4 * sigmas[1] + 0.5) + size) // period
        distance = jnp.arange(-size, size) + period * jnp.arange(-repeats, repeats + 1)[:, None]
        inside = jnp.abs(distance) <= jnp.floor(4 * sigma + 0.5)
        weight = jnp.exp(-0.5 * (distance / jnp.maximum(sigma, 0.1)) ** 2)
        folded = jnp.sum(jnp.where(inside, weight, 0.0), axis=0)
        folded /= jnp.sum(folded)
        index = np.arange(size)
        mirrored = (index[:, None] + index + 1 + size) % period
        return folded[index[:, None] - index + size] + folded[mirrored]

    def generate(record: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(jax.random.PRNGKey(0), record), 3)
        sigma = uniform(keys[0], shape=(), minval=sigmas[0], maxval=sigmas[1])
        factor = uniform(keys[1], shape=(), minval=SCALES[0], maxval=SCALES[1])
        noise = uniform(keys[2], shape=(2, size, size), minval=-1.0, maxval=1.0)
        smooth, exact = matrix(sigma), lax.Precision.HIGHEST
        rows = jnp.matmul(noise.reshape(2 * size, size), smooth, precision=exact)
        u, v = (jnp.matmul(smooth, part, precision=exact) for part in rows.reshape(2, size, size))
        return jnp.stack([u, v], axis=-1) * (factor / jnp.sqrt(jnp.max(u**2 + v**2)))

    program = jax.jit(lambda records: lax.map(generate, records, batch_size=many))
    return lambda turn: program(jnp.arange(many) + turn * many)


def contenders(
    size: int, sigmas: tuple[float, float], many: int, *, slow: bool
) -> dict[str, Callable[[int], Any]]:
    arguments: dict[str, Any] = {
        "image_shape": (size, size),
        "filter_sigma_range": sigmas,
        "scale_factor_range": SCALES,
    }
    settings = KinematicSettings(
        extent=(size, size), filter_sigma_range=sigmas, scale_factor_range=SCALES
    )
    program = jax.jit(partial(kinematic_fields, settings=settings))

    def on_host(source: Any) -> Callable[[int], Any]:
        return lambda turn: [source[turn * many + j]["flow_fields"] for j in range(many)]

    return {
        **({"synthpix": on_host(KinematicDataSource(**arguments))} if slow else {}),
        "host, 0.1.0": on_host(ByCosines(**arguments)),
        "host": on_host(KinematicFields(10**6, settings)),
        "device, 0.1.0": by_products(size, sigmas, many),
        "device": lambda turn: program(numbers_of(turn, many)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = command_line(__doc__).parse_args(arguments)
    rows = []
    for size, many in SIZES.items():
        for sigmas in (USUAL, *WIDTHS):
            # synthpix's cost grows with sigma, up to 2 s a field.
            slow = sigmas == USUAL
            racing = contenders(size, sigmas, many, slow=slow)
            measured = interleaved(
                {name: timed(one, per=many) for name, one in racing.items()},
                rounds=3 if slow and size > 256 else ROUNDS,
            )
            for name, seconds in measured.items():
                side = name.removesuffix(", 0.1.0")
                faster = ratio(measured.get(f"{side}, 0.1.0", seconds), seconds)
                width = " to ".join(f"{sigma:g}" for sigma in sorted(set(sigmas)))
                rows.append([size, width, name, spread(seconds), f"{faster:.1f}"])
    body = table(["field, px", "sigma, px", "who", "ms a field", "times 0.1.0"], rows)
    body += f"\n\nMedian and quartiles of {ROUNDS} rounds (3 with synthpix's at 1024 px), "
    body += "interleaved. All make a field of the same number of samples with scale_mode peak. "
    body += "Those of 0.1.0 have synthpix's reflecting border; ours are homogeneous."
    write("kinematic", "Kinematic flow fields", body, folder=options.output)


if __name__ == "__main__":
    main()
