"""The renderer "particles": labels and images that are right by docs/physics.md.

Several pairs are rendered at once, and summed in fixed point (`splat`), with random numbers that
fuse (`draws`), and without a float scatter, whose bits depend on the order of its updates.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32, Num, UInt32
from synthpix.types import ImageGenerationParameters

from synthpix_torch.config.config import Config
from synthpix_torch.draws import as_normal, as_uniform, words
from synthpix_torch.render.effects.body import fluid_labels
from synthpix_torch.render.effects.plan import plan_effects
from synthpix_torch.render.effects.stages import (
    Seeds,
    capture,
    digitise,
    light_first,
    light_second,
    seed,
)
from synthpix_torch.render.geometry import locate
from synthpix_torch.render.histogram import match_histogram
from synthpix_torch.render.interpolation import at_points, on_grid
from synthpix_torch.render.keys import Origin, PairKeys, pair_keys
from synthpix_torch.render.seeding import (
    Drawn,
    StageKeys,
    brightest,
    correlated,
    draw_parameters,
    draw_particles,
    particle_count,
    stage_keys,
    window_radius,
)
from synthpix_torch.render.splat import Particles, splat

CPU_WORKING_BYTES: Final = 64 * 2**20
"""Memory for the particles and images that are rendered together on a CPU; more is no faster."""

GPU_WORKING_BYTES: Final = 4 * 2**30
"""The same on any other device, which needs many pairs at once to be busy."""

CPU_BLOCK: Final = 8192
"""Windows that a CPU computes at once: they stay in its cache."""

CPU_LANES: Final = 8
"""Numbers of 32 bits that a CPU computes at a time; on a GPU rows of any width are as fast."""


class ParticleRenderer:
    """Make labels and images of flow fields.

    Attributes:
        fluid: True where a label lies in the fluid; None without a body in the flow.
    """

    version = 2
    fluid: Bool[np.ndarray, "y x"] | None

    def __init__(
        self,
        config: Config,
        flow_field_shape: tuple[int, ...],
        device: jax.Device,
        *,
        working_bytes: int | None = None,
    ) -> None:
        """Place images, labels and particles in flow fields of one shape.

        Args:
            config: The configuration.
            flow_field_shape: Rows, columns and components of each flow field.
            device: Decides how much memory is used.
            working_bytes: Bound on the memory for the particles and images of the pairs rendered
                together, which are two at least. Changes no bit of the result.

        Raises:
            ValueError: Effects that these flow fields do not allow for.
        """
        self._on_cpu = device.platform == "cpu"
        bound = CPU_WORKING_BYTES if self._on_cpu else GPU_WORKING_BYTES
        self._working_bytes = bound if working_bytes is None else working_bytes
        self._config = config
        self._radius = window_radius(config)
        self._geometry = locate(config, flow_field_shape, reach=self._radius)
        self._effects = plan_effects(config, components=flow_field_shape[2])
        self._layers = self._effects.slab_thicknesses
        self._count = particle_count(config, self._geometry, layers=self._layers)
        self.fluid = None
        if self._effects.body is not None:
            self.fluid = fluid_labels(
                self._effects.body,
                label_shape=self._geometry.label_shape,
                pixels_per_label=self._geometry.pixels_per_label,
            )

    def adapt(self, flow_fields: Num[Array, "f y x c"]) -> tuple[Float[Array, "f h w 2"], None]:
        """Return the displacements at the labels; particles move with the fields as they are."""
        fields = flow_fields[..., :2].astype(jnp.float32)
        place = self._geometry
        labels = on_grid(fields, y=place.label_nodes(0), x=place.label_nodes(1))
        if self._config.output_units == "pixels":
            labels = labels * place.pixels_per_speed
        return labels, None

    def keys(self, origin: Origin, repetition: Int[Array, ""]) -> PairKeys:
        """Return a key for each pair that no other pair and no other seed has."""
        return pair_keys(origin, repetition)

    def render(
        self, keys: UInt32[Array, "n k"], moving: Num[Array, "f y x c"]
    ) -> tuple[Float[Array, "n h w"], Float[Array, "n h w"], ImageGenerationParameters]:
        """Render one pair for each key; pair i moves with flow field i % f.

        Raises:
            ValueError: So many or so bright particles that their sum could leave 31 bits.
        """
        pairs = keys.shape[0]
        # Never one alone: XLA inlines a loop of one step, see `_render_chunk`.
        at_once = max(2, self._working_bytes // self._bytes_of_a_pair())
        chunks = _chunks(pairs, at_once)
        chunk = math.ceil(pairs / chunks)
        # The last chunk is filled with pairs that are dropped again.
        padded = jnp.pad(keys, ((0, chunks * chunk - pairs), (0, 0)))
        field = jnp.arange(chunks * chunk, dtype=jnp.int32) % moving.shape[0]
        rendered = lax.map(
            lambda part: self._render_chunk(*part, moving=moving),
            (padded.reshape(chunks, chunk, -1), field.reshape(chunks, chunk)),
        )
        first, second, drawn = jax.tree.map(
            lambda v: v.reshape(chunks * chunk, *v.shape[2:])[:pairs], rendered
        )
        return (
            first,
            second,
            ImageGenerationParameters(
                seeding_densities=drawn.density,
                diameter_ranges=drawn.diameter,
                intensity_ranges=drawn.intensity,
                rho_ranges=drawn.rho,
            ),
        )

    def _bytes_of_a_pair(self) -> int:
        """Return the memory that rendering a pair takes: numbers of 4 bytes, for two images."""
        height, width = (size + 4 * self._radius for size in self._geometry.image_shape)
        # Particles, their windows and, at once only on a GPU, the factors of the windows.
        numbers = 14 + (0 if self._on_cpu else 2 * (2 * self._radius + 1))
        return 2 * 4 * (numbers * self._count + 2 * height * width)

    def _render_chunk(
        self,
        keys: UInt32[Array, "chunk k"],
        field: Int32[Array, " chunk"],
        *,
        moving: Num[Array, "f y x c"],
    ) -> tuple[Float[Array, "chunk h w"], Float[Array, "chunk h w"], Drawn]:
        """Render some pairs together: seed, move, sum the light, expose."""
        chunk = keys.shape[0]
        # A GPU draws for each image, see `_draw_at_once`.
        drawing = keys if self._on_cpu else jnp.tile(keys, (2, 1))
        stages = jax.vmap(stage_keys)(drawing)
        drawn = jax.vmap(lambda key: draw_parameters(key, config=self._config))(stages.parameters)
        if self._on_cpu:
            # There XLA discards optimization barriers before it fuses, but keeps loops.
            first, second, seeds = lax.map(
                self._seed, (keys, stages, drawn), batch_size=max(1, chunk // 2)
            )
            # Both start at the same positions, of which one copy leaves the loop.
            second = self._move(
                second._replace(y=first.y, x=first.x), seeds, moving=moving, field=field
            )
            both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
        else:
            both = self._draw_at_once((drawing, stages, drawn), moving=moving, field=field)
        light = splat(
            both,
            shape=self._geometry.image_shape,
            radius=self._radius,
            brightest=brightest(self._config),
            # LLVM computes the shorter loop without correlation one number at a time.
            correlated=self._on_cpu or correlated(self._config),
            block=CPU_BLOCK if self._on_cpu else None,
            lanes=CPU_LANES if self._on_cpu else 1,
        )
        # Exposed apart: a kernel with two results would be compiled in pieces.
        return (
            self._expose(light[:chunk], keys, stages.noise1[:chunk], image=0),
            self._expose(light[chunk:], keys, stages.noise2[:chunk], image=1),
            jax.tree.map(lambda v: v[:chunk], drawn),
        )

    def _draw_at_once(
        self,
        images: tuple[UInt32[Array, "images k"], StageKeys, Drawn],
        *,
        moving: Num[Array, "f y x c"],
        field: Int32[Array, " chunk"],
    ) -> Particles:
        """Draw the particles of all first images and then of all second images.

        The particles of a pair are drawn for each of its images, so that nothing is stored between
        the draws and their use.
        """
        first, second, seeds = jax.vmap(self._seed)(images)
        chunk = len(field)
        # The motion needs positions before the rest.
        y, x = lax.optimization_barrier((first.y[:chunk], first.x[:chunk]))
        first = first._replace(y=jnp.tile(y, (2, 1)), x=jnp.tile(x, (2, 1)))
        second = self._move(
            second._replace(y=first.y, x=first.x), seeds, moving=moving, field=jnp.tile(field, 2)
        )
        moved = jnp.arange(2 * chunk)[:, None] >= chunk
        both: Particles = jax.tree.map(partial(jnp.where, moved), second, first)
        return both

    def _seed(
        self, pair: tuple[UInt32[Array, "k"], StageKeys, Drawn]
    ) -> tuple[Particles, Particles, Seeds]:
        """Draw the particles of one pair, and light those of the first image."""
        key, stages, drawn = pair
        first, second = draw_particles(
            stages,
            drawn,
            config=self._config,
            geometry=self._geometry,
            count=self._count,
            layers=self._layers,
        )
        seeds = seed(key, first.y, first.x, effects=self._effects)
        intensity = light_first(first.intensity, seeds, effects=self._effects)
        return first._replace(intensity=intensity), second, seeds

    def _move(
        self,
        particles: Particles,
        seeds: Seeds,
        *,
        moving: Num[Array, "f y x c"],
        field: Int32[Array, " chunk"],
    ) -> Particles:
        """Move particles by one Euler step, and light them where they are then."""
        place = self._geometry
        velocities = at_points(
            moving,
            field=field,
            y=particles.y * place.nodes_per_pixel[0] + place.first_node[0],
            x=particles.x * place.nodes_per_pixel[1] + place.first_node[1],
        )
        y = particles.y + velocities[1] * place.pixels_per_speed
        x = particles.x + velocities[0] * place.pixels_per_speed
        intensity = light_second(
            particles.intensity,
            seeds,
            y=y,
            x=x,
            rise=velocities[2] * self._config.dt if len(velocities) > 2 else 0.0,
            effects=self._effects,
        )
        return particles._replace(y=y, x=x, intensity=intensity)

    def _expose(
        self,
        light: Float[Array, "chunk h w"],
        pair_keys: UInt32[Array, "chunk k"],
        noise_keys: UInt32[Array, "chunk k"],
        *,
        image: int,
    ) -> Float[Array, "chunk h w"]:
        """Take images: add noise, clip to the range of grey levels, apply mask and histogram."""
        config, effects = self._config, self._effects
        light = jax.vmap(lambda key, one: capture(key, one, image=image, effects=effects))(
            pair_keys, light
        )
        images = light + config.noise_gaussian_mean
        if config.noise_uniform or config.noise_gaussian_std:
            flat, bell = jax.vmap(lambda key: words(key, shape=light.shape[1:]))(noise_keys)
            if config.noise_uniform:
                images = images + as_uniform(flat, maxval=config.noise_uniform)
            if config.noise_gaussian_std:
                images = images + as_normal(bell) * config.noise_gaussian_std
        images = digitise(images, effects=effects)
        if config.mask_image is not None:
            images = images * jnp.asarray(config.mask_image)
        if config.histogram_counts is not None:
            counts = jnp.asarray(config.histogram_counts, jnp.float32)
            images = jax.vmap(lambda image: match_histogram(image, counts))(images)
        return images


def _chunks(pairs: int, at_once: int) -> int:
    """Return a number of chunks of at most `at_once` pairs, of equal size if one is near."""
    least = math.ceil(pairs / at_once)
    # What fills the last chunk is rendered in vain, and dropped by a copy of all images.
    equal = (n for n in range(least, 2 * least) if pairs % n == 0 and pairs // n > 1)
    return next(equal, least)
