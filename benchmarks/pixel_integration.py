"""Ways to integrate a Gaussian particle over pixels: python -m benchmarks.pixel_integration.

Error against 24 x 24 nodes of Gauss and Legendre, and time on this machine. A particle has unequal
axes, any place within its pixel, and a window of 4 standard deviations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import erf
from jaxtyping import Array, Float
from scipy.special import erf as exact_erf

from benchmarks.report import command_line, interleaved, spread, table, write
from synthpix_torch.render.splat import Particles, splat

Method = Callable[[Particles, int], Float[Array, "particles window window"]]


def quadrature(particles: Particles, radius: int, *, nodes: int) -> Float[Array, "n w w"]:
    """Sum the Gaussian at nodes x nodes points of Gauss and Legendre in each pixel."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    pixel = jnp.arange(-radius, radius + 1)
    total = jnp.zeros((particles.y.shape[0], pixel.size, pixel.size))
    rho = particles.rho[:, None, None]
    for dy, wy in zip(points / 2, weights / 2, strict=True):
        for dx, wx in zip(points / 2, weights / 2, strict=True):
            v = (pixel + dy - particles.y[:, None]) * (2 / particles.diameter_y)[:, None]
            u = (pixel + dx - particles.x[:, None]) * (2 / particles.diameter_x)[:, None]
            v, u = v[:, :, None], u[:, None, :]
            total += wy * wx * jnp.exp(-(u**2 + v**2 - 2 * rho * u * v) / (2 * (1 - rho**2)))
    return total * particles.intensity[:, None, None]


def moments(particles: Particles, radius: int) -> Float[Array, "n w w"]:
    """Sample the Gaussian of the integrated particle's second moments at the pixels' centres."""
    sy, sx = particles.diameter_y / 2, particles.diameter_x / 2
    vy, vx = sy**2 + 1 / 12, sx**2 + 1 / 12
    r = particles.rho * sy * sx / jnp.sqrt(vy * vx)
    light = sy * sx * jnp.sqrt((1 - particles.rho**2) / (vy * vx * (1 - r**2)))
    wide = particles._replace(
        diameter_y=2 * jnp.sqrt(vy),
        diameter_x=2 * jnp.sqrt(vx),
        rho=r,
        intensity=particles.intensity * light,
    )
    return quadrature(wide, radius, nodes=1)


def rows(particles: Particles, radius: int) -> Float[Array, "n w w"]:
    """Integrate along y, then each row as a Gaussian of its own mean along x."""
    sy, sx, rho = particles.diameter_y / 2, particles.diameter_x / 2, particles.rho
    edge = jnp.arange(-radius, radius + 2) - 0.5
    v = (edge - particles.y[:, None]) / sy[:, None]
    share = jnp.diff(erf(v * math.sqrt(0.5))) / 2
    density = jnp.exp(-(v**2) / 2) / math.sqrt(2 * math.pi)
    mean = jnp.clip(-jnp.diff(density) / jnp.maximum(share, 1e-30), v[:, :-1], v[:, 1:])
    width = sx * jnp.sqrt(1 - rho**2 + rho**2 / (12 * sy**2 + 1))
    centre = particles.x[:, None] + (rho * sx)[:, None] * mean
    u = (edge - centre[..., None]) / width[:, None, None]
    light = particles.intensity * 2 * math.pi * sy * sx * jnp.sqrt(1 - rho**2)
    return (light[:, None] * share)[..., None] * jnp.diff(erf(u * math.sqrt(0.5))) / 2


def coupled(particles: Particles, radius: int) -> Float[Array, "n w w"]:
    """Multiply both integrals by the coupling of matched moments, as `splat` does."""
    parts = [
        _share(centre, diameter / 2, radius)
        for centre, diameter in (
            (particles.y, particles.diameter_y),
            (particles.x, particles.diameter_x),
        )
    ]
    flat = particles._replace(rho=jnp.zeros_like(particles.rho))
    ratio = moments(particles, radius) / jnp.maximum(moments(flat, radius), 1e-30)
    sigma = particles.diameter_y * particles.diameter_x / 4
    light = particles.intensity * 2 * math.pi * sigma
    return light[:, None, None] * parts[0][:, :, None] * parts[1][:, None, :] * ratio


def _share(
    centre: Float[Array, "n"], sigma: Float[Array, "n"], radius: int
) -> Float[Array, "n window"]:
    edge = jnp.arange(-radius, radius + 2) - 0.5
    return jnp.diff(erf((edge - centre[:, None]) * (math.sqrt(0.5) / sigma)[:, None])) / 2


METHODS: dict[str, Method] = {
    "one point (synthpix)": partial(quadrature, nodes=1),
    "2 x 2 nodes": partial(quadrature, nodes=2),
    "3 x 3 nodes": partial(quadrature, nodes=3),
    "matched moments at a point": moments,
    "erf along y, erf in each row": rows,
    "erf products, coupled by moments (ours)": coupled,
}


def draw(count: int, *, diameter: float, rho: float) -> Particles:
    rng = np.random.default_rng(0)
    y, x = rng.uniform(-0.5, 0.5, (2, count))
    dy, dx = diameter * rng.uniform(0.8, 1.2, (2, count))
    parts = (y, x, dy, dx, np.full(count, rho), np.ones(count))
    return Particles(*(jnp.asarray(part, jnp.float32) for part in parts))


def errors(method: Method, *, diameter: float, rho: float) -> str:
    """Worst error of a pixel and of the light in %, and of the centroid in px, of 200 particles."""
    particles, radius = draw(200, diameter=diameter, rho=rho), math.ceil(2.4 * diameter) + 1
    got = np.asarray(method(particles, radius), float)
    true = np.asarray(quadrature(particles, radius, nodes=24), float)
    light = abs(got.sum((1, 2)) / true.sum((1, 2)) - 1).max()
    pixel = (abs(got - true).max((1, 2)) / true.max((1, 2))).max()
    steps = np.arange(-radius, radius + 1)

    def centroid(image: np.ndarray) -> np.ndarray:
        weight = image.sum((1, 2))
        return np.stack([image.sum(2) @ steps / weight, image.sum(1) @ steps / weight])

    place = np.hypot(*(centroid(got) - centroid(true))).max()
    return f"{100 * pixel:.2f} / {100 * light:.2f} / {place:.4f}"


def timed(method: Method, particles: Particles) -> Callable[[], float]:
    """Nanoseconds a particle of a window of 9 x 9 pixels, rounded to integers."""
    run = jax.jit(lambda p: lax.round(method(p, 4)).astype(jnp.int32))

    def once() -> float:
        begin = time.perf_counter()
        run(particles).block_until_ready()
        return (time.perf_counter() - begin) / particles.y.shape[0]

    return once


def whole(particles: Particles, *, correlated: bool) -> Callable[[], float]:
    """Nanoseconds a particle of `splat` itself, sums included."""
    eight = jax.tree.map(lambda v: v.reshape(8, -1), particles)
    place = jnp.asarray(np.random.default_rng(1).uniform(0, 256, (2, *eight.y.shape)), jnp.float32)
    eight = eight._replace(y=place[0], x=place[1])
    run = jax.jit(
        lambda p: splat(
            p,
            shape=(256, 256),
            radius=4,
            brightest=1.0,
            correlated=correlated,
            block=2000,
            lanes=8,
        )
    )

    def once() -> float:
        begin = time.perf_counter()
        run(eight).block_until_ready()
        return (time.perf_counter() - begin) / particles.y.shape[0]

    return once


def main(arguments: Sequence[str] | None = None) -> None:
    options = command_line(__doc__).parse_args(arguments)
    assert abs(float(erf(0.5)) - exact_erf(0.5)) < 1e-6
    cases = [(0.8, 0.0), (0.8, 0.2), (0.8, 0.5), (1.25, 0.2), (2.0, 0.2), (2.0, 0.9)]
    particles = draw(32_000, diameter=2.0, rho=0.2)
    contestants = {name: timed(method, particles) for name, method in METHODS.items()}
    contestants["`splat`, correlated"] = whole(particles, correlated=True)
    contestants["`splat`, rho 0"] = whole(particles, correlated=False)
    measured = interleaved(contestants, rounds=9)
    rows_of_table = [
        [
            name,
            *(
                errors(METHODS[name], diameter=diameter, rho=rho) if name in METHODS else ""
                for diameter, rho in cases
            ),
            spread(seconds, unit=1e-9),
        ]
        for name, seconds in measured.items()
    ]
    head = ["method", *(f"d {diameter}, rho {rho}" for diameter, rho in cases), "ns a particle"]
    body = table(head, rows_of_table)
    body += (
        "\n\nWorst of 200 particles: pixel in % of the brightest, light in %, centroid in px. "
        "Time: median and quartiles of 9 rounds for windows of 9 x 9 pixels; "
        "`splat` includes the sums."
    )
    write("pixel_integration", "Integration of particles over pixels", body, folder=options.output)


if __name__ == "__main__":
    main()
