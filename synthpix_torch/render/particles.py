"""Render pairs of particle images from flow fields.

The random draws and the physics are those of `synthpix.data_generate.generate_images_from_flow`
(0.3.1), and on the same keys the images agree with it to 1e-3 grey levels. What differs is how the
work is done: several pairs at once, summed in fixed point (`splat`), with random numbers that fuse
(`draws`), and without a float scatter, whose bits depend on the order of its updates.
"""

import math
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32, Real, UInt32
from synthpix.types import ImageGenerationParameters, ImageGenerationSpecification
from synthpix.utils import match_histogram

from synthpix_torch.config.config import Config
from synthpix_torch.draws import normal, uniform
from synthpix_torch.render.splat import Particles, splat
from synthpix_torch.render.synthpix import SynthpixRenderer

CPU_WORKING_BYTES: Final = 16 * 2**20
"""Memory for the windows of particles on a CPU: what its caches hold is faster."""

GPU_WORKING_BYTES: Final = 512 * 2**20
"""The same on any other device, which needs many pairs at once to be busy."""


class ParticleRenderer(SynthpixRenderer):
    """Make synthpix's images several pairs at once; its labels and keys are synthpix's."""

    def __init__(
        self, config: Config, flow_field_shape: tuple[int, ...], device: jax.Device
    ) -> None:
        """Place images in flow fields as synthpix's sampler does.

        Raises:
            ValueError: synthpix refuses the configuration.
        """
        super().__init__(config, flow_field_shape, device)
        on_cpu = device.platform == "cpu"
        self._working_bytes = CPU_WORKING_BYTES if on_cpu else GPU_WORKING_BYTES

    def render(
        self, keys: UInt32[Array, "n k"], moving: Float[Array, "f b a 2"]
    ) -> tuple[Float[Array, "n h w"], Float[Array, "n h w"], ImageGenerationParameters]:
        """Return images that agree with synthpix's to 1e-3 grey levels."""
        config, place = self._config, self._place
        return render_pairs(
            keys[0],
            moving,
            place.specification,
            position_bounds=place.position_bounds,
            flow_field_res_x=place.grid_steps[1],
            flow_field_res_y=place.grid_steps[0],
            mask=None if config.mask_image is None else jnp.asarray(config.mask_image),
            histogram=None
            if config.histogram_counts is None
            else jnp.asarray(config.histogram_counts),
            working_bytes=self._working_bytes,
        )


class _Ranges(NamedTuple):
    """Index of the diameter, intensity and rho range selected for a pair."""

    diameter: Int32[Array, ""]
    intensity: Int32[Array, ""]
    rho: Int32[Array, ""]


def render_pairs(
    key: UInt32[Array, "..."],
    flow_fields: Float[Array, "fields flow_height flow_width 2"],
    specification: ImageGenerationSpecification,
    *,
    position_bounds: tuple[int, int],
    flow_field_res_x: float,
    flow_field_res_y: float,
    mask: Array | None = None,
    histogram: Array | None = None,
    working_bytes: int = CPU_WORKING_BYTES,
) -> tuple[
    Float[Array, "pairs height width"],
    Float[Array, "pairs height width"],
    ImageGenerationParameters,
]:
    """Render `specification.batch_size` pairs; pair i moves with flow field i % fields.

    Args:
        key: One raw key, or several of which the first is used, as synthpix does.
        flow_fields: Velocities (x, y) in length units per second on a grid over the position
            bounds.
        specification: synthpix's; `image_shape` at `img_offset` is the crop, in pixels.
        position_bounds: Height and width in pixels of the area in which particles are seeded.
        flow_field_res_x: Grid steps per length unit along x.
        flow_field_res_y: Grid steps per length unit along y.
        mask: Multiplied with every image, shape (height, width).
        histogram: Target of `synthpix.utils.match_histogram`, shape (256,).
        working_bytes: Bound on the memory for windows of particles, and for the images of the pairs
            rendered together, which are two at least. Changes no bit of the result.

    Returns:
        First images and second images in grey levels from 0 to 255, and the parameters drawn.

    Raises:
        ValueError: So many or so bright particles that their sum could leave 31 bits.
    """
    spec = specification
    # At least one, for loops that cannot be empty; beyond the density it is invisible.
    count = max(1, int(position_bounds[0] * position_bounds[1] * spec.seeding_density_range[1]))
    radius = int(3 * max(high for _, high in spec.diameter_ranges) / 2)
    brightest = float(max(high for _, high in spec.intensity_ranges))
    particle_bytes = 2 * (2 * radius + 1) ** 2 * 4
    image_bytes = 4 * position_bounds[0] * position_bounds[1]
    # Never one alone: XLA inlines a loop of one step, see below.
    at_once = max(2, working_bytes // max(particle_bytes * count, 2 * image_bytes))
    chunks = math.ceil(spec.batch_size / at_once)
    chunk = math.ceil(spec.batch_size / chunks)

    key = jnp.reshape(key, (-1, key.shape[-1]))[0]
    key, density_key = jax.random.split(key)
    densities = _seeding_densities(density_key, spec=spec)
    # The last chunk is filled with pairs that are dropped again.
    padding = chunks * chunk - spec.batch_size
    index = jnp.arange(chunks * chunk, dtype=jnp.int32).reshape(chunks, chunk)

    def render(
        pairs: tuple[Int32[Array, "chunk"], Float[Array, "chunk"]],
    ) -> tuple[tuple[Float[Array, "chunk height width"], ...], _Ranges]:
        index, density = pairs
        subkeys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), 9))(index)
        ranges = jax.vmap(lambda keys: _select_ranges(keys, spec=spec))(subkeys[:, 6:])
        # The loop keeps XLA from repeating the random generators in everything that uses a
        # particle; on a CPU it discards optimization barriers before it fuses.
        first, second = lax.map(
            lambda pair: _seed(*pair, spec=spec, bounds=position_bounds, count=count),
            (subkeys, ranges, density),
            batch_size=max(1, chunk // 2),
        )
        y, x = _advect(
            first.y,
            first.x,
            flow_fields,
            field=index % flow_fields.shape[0],
            steps_per_pixel=(
                flow_fields.shape[1] / position_bounds[0],
                flow_fields.shape[2] / position_bounds[1],
            ),
            res_x=flow_field_res_x,
            res_y=flow_field_res_y,
            dt=float(spec.dt),
        )
        images = splat(
            jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second._replace(y=y, x=x)),
            bounds=position_bounds,
            radius=radius,
            brightest=brightest,
            block=max(1, working_bytes // (particle_bytes * chunk)),
        )
        rows = slice(spec.img_offset[0], spec.img_offset[0] + spec.image_shape[0])
        columns = slice(spec.img_offset[1], spec.img_offset[1] + spec.image_shape[1])
        # Finished apart: a kernel with two results would be compiled in pieces.
        exposures = tuple(
            finish(images[i * chunk : (i + 1) * chunk, rows, columns], subkeys[:, 4 + i])
            for i in range(2)
        )
        return exposures, ranges

    def finish(
        images: Float[Array, "chunk height width"], keys: UInt32[Array, "chunk 2"]
    ) -> Float[Array, "chunk height width"]:
        images = _add_noise(images, keys, spec=spec)
        if mask is not None:
            images = images * mask
        if histogram is not None:
            images = jax.vmap(lambda image: match_histogram(image, histogram))(images)
        return images

    exposures, ranges = lax.map(
        render, (index, jnp.pad(densities, (0, padding)).reshape(chunks, chunk))
    )
    (first, second), ranges = jax.tree.map(
        lambda v: v.reshape(chunks * chunk, *v.shape[2:])[: spec.batch_size],
        (exposures, ranges),
    )
    return (
        first,
        second,
        ImageGenerationParameters(
            seeding_densities=densities,
            diameter_ranges=jnp.array(spec.diameter_ranges)[ranges.diameter],
            intensity_ranges=jnp.array(spec.intensity_ranges)[ranges.intensity],
            rho_ranges=jnp.array(spec.rho_ranges)[ranges.rho],
        ),
    )


def _seeding_densities(
    key: UInt32[Array, "2"], *, spec: ImageGenerationSpecification
) -> Float[Array, "pairs"]:
    """Draw particles per pixel for every pair of the batch."""
    low, high = spec.seeding_density_range
    densities = jax.random.uniform(key, (spec.batch_size,), minval=low, maxval=high)
    return jnp.clip(densities, 0, high)


def _select_ranges(keys: UInt32[Array, "3 2"], *, spec: ImageGenerationSpecification) -> _Ranges:
    """Select one range of each property for a pair."""
    choices = (spec.diameter_ranges, spec.intensity_ranges, spec.rho_ranges)
    return _Ranges(
        *(jax.random.randint(key, (), 0, len(c)) for key, c in zip(keys, choices, strict=True))
    )


def _seed(
    keys: UInt32[Array, "9 2"],
    ranges: _Ranges,
    density: Float[Array, ""],
    *,
    spec: ImageGenerationSpecification,
    bounds: tuple[int, int],
    count: int,
) -> tuple[Particles, Particles]:
    """Draw the particles of one pair.

    Returns:
        The particles of both exposures, each `count` of them; the second still at the first
        positions.
    """
    shape = (count,)
    diameter_low, diameter_high = jnp.array(spec.diameter_ranges)[ranges.diameter]
    intensity_low, intensity_high = jnp.array(spec.intensity_ranges)[ranges.intensity]
    rho_low, rho_high = jnp.array(spec.rho_ranges)[ranges.rho]

    position = uniform(keys[2], shape=(count, 2)) * jnp.array(bounds)
    (
        key_diameter,
        key_ellipticity,
        key_rho,
        key_intensity,
        key_diameter_x,
        key_diameter_y,
        key_rho_change,
        key_intensity_change,
    ) = jax.random.split(keys[3], 8)
    diameter_x = uniform(key_diameter, shape=shape, minval=diameter_low, maxval=diameter_high)
    diameter_y = jnp.clip(
        diameter_x + uniform(key_ellipticity, shape=shape, minval=-1.0, maxval=1.0),
        diameter_low,
        diameter_high,
    )
    rho = uniform(key_rho, shape=shape, minval=rho_low, maxval=rho_high)
    intensity = uniform(key_intensity, shape=shape, minval=intensity_low, maxval=intensity_high)

    def changed(
        value: Float[Array, "n"],
        key: UInt32[Array, "2"],
        variance: float,
        low: Real[Array, ""],
        high: Real[Array, ""],
    ) -> Float[Array, "n"]:
        return jnp.clip(value + normal(key, shape=shape) * jnp.sqrt(variance), low, high)

    seeded = lax.iota(jnp.int32, count) < jnp.floor(bounds[0] * bounds[1] * density)
    visible = [
        seeded & (uniform(key, shape=shape) < 1.0 - hidden) if hidden else seeded
        for key, hidden in ((keys[0], spec.p_hide_img1), (keys[1], spec.p_hide_img2))
    ]
    first = Particles(
        y=position[:, 0],
        x=position[:, 1],
        diameter_y=diameter_y,
        diameter_x=diameter_x,
        rho=rho,
        intensity=intensity * visible[0],
    )
    diameter_limits = (float(spec.diameter_var), diameter_low, diameter_high)
    second = first._replace(
        diameter_y=changed(diameter_y, key_diameter_y, *diameter_limits),
        diameter_x=changed(diameter_x, key_diameter_x, *diameter_limits),
        rho=changed(rho, key_rho_change, float(spec.rho_var), rho_low, rho_high),
        intensity=visible[1]
        * changed(
            intensity,
            key_intensity_change,
            float(spec.intensity_var),
            intensity_low,
            intensity_high,
        ),
    )
    return first, second


def _advect(
    y: Float[Array, "pairs particles"],
    x: Float[Array, "pairs particles"],
    flow_fields: Float[Array, "fields flow_height flow_width 2"],
    *,
    field: Int32[Array, "pairs"],
    steps_per_pixel: tuple[float, float],
    res_x: float,
    res_y: float,
    dt: float,
) -> tuple[Float[Array, "pairs particles"], Float[Array, "pairs particles"]]:
    """Move particles by one Euler step in the bilinearly interpolated flow.

    The order of operations is that of synthpix: at 256 px one rounding more moves a particle by
    1.5e-5 px, and small particles turn that into 1e-2 grey levels.

    Args:
        y: Position in pixels.
        x: Position in pixels.
        flow_fields: Velocities (x, y) in length units per second.
        field: The flow field of each pair.
        steps_per_pixel: Grid steps of the flow field per pixel along y and x.
        res_x: Grid steps per length unit along x.
        res_y: Grid steps per length unit along y.
        dt: Seconds between the exposures.

    Returns:
        Positions y and x in pixels, maybe beyond the bounds.
    """
    _, height, width, _ = flow_fields.shape
    y, x = y * steps_per_pixel[0], x * steps_per_pixel[1]
    row = jnp.clip(jnp.floor(y).astype(jnp.int32), 0, height - 1)
    column = jnp.clip(jnp.floor(x).astype(jnp.int32), 0, width - 1)
    below, right = jnp.minimum(row + 1, height - 1), jnp.minimum(column + 1, width - 1)
    wy = jnp.clip(y, 0.0, height - 1.0) - row
    wx = jnp.clip(x, 0.0, width - 1.0) - column

    flat = flow_fields.reshape(-1, 2)
    base = field[:, None] * height

    def at(
        row: Int32[Array, "pairs n"], column: Int32[Array, "pairs n"]
    ) -> Float[Array, "pairs n 2"]:
        return flat.at[(base + row) * width + column].get(mode="promise_in_bounds")

    corners = (at(row, column), at(row, right), at(below, column), at(below, right))

    def interpolate(component: int) -> Float[Array, "pairs n"]:
        i00, i10, i01, i11 = (corner[..., component] for corner in corners)
        return (1 - wx) * (1 - wy) * i00 + wx * (1 - wy) * i10 + (1 - wx) * wy * i01 + wx * wy * i11

    y = y + interpolate(1) * res_y * dt
    x = x + interpolate(0) * res_x * dt
    return y / steps_per_pixel[0], x / steps_per_pixel[1]


def _add_noise(
    images: Float[Array, "images height width"],
    keys: UInt32[Array, "images 2"],
    *,
    spec: ImageGenerationSpecification,
) -> Float[Array, "images height width"]:
    """Add uniform and Gaussian noise and clip to the range of grey levels."""
    shape = images.shape[1:]
    uniform_keys, gaussian_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    if spec.noise_uniform:
        amplitude = float(spec.noise_uniform)
        images = images + jax.vmap(lambda k: uniform(k, shape=shape, maxval=amplitude))(
            uniform_keys
        )
    images = images + spec.noise_gaussian_mean
    if spec.noise_gaussian_std:
        noise = jax.vmap(lambda k: normal(k, shape=shape))(gaussian_keys)
        images = images + noise * spec.noise_gaussian_std
    return jnp.clip(images, 0, 255)
