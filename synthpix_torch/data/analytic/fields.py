"""Analytic flow fields by record number, on the host or on the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from synthpix_torch.data.analytic.flows import Parameters
from synthpix_torch.data.analytic.settings import DOMAIN, AnalyticSettings
from synthpix_torch.data.fields import GeneratedFields
from synthpix_torch.data.kinematic import KinematicFields, kinematic_fields
from synthpix_torch.draws import uniform

_PARAMETERS = len(Parameters._fields)


class AnalyticFields(GeneratedFields[AnalyticSettings]):
    """Random access to the fields of an analytic flow."""

    kind = "analytic"

    def __init__(self, num_examples: int, settings: AnalyticSettings) -> None:
        """Describe the fields; none is generated before it is read.

        Args:
            num_examples: Number of fields.
            settings: Their distribution.
        """
        super().__init__(num_examples, settings)
        self._noise = KinematicFields(num_examples, settings.grid)

    @property
    def scheme(self) -> str:
        """The name of the flow."""
        return self.settings.flow

    def generate(
        self, index: int, *, out: Float[np.ndarray, "height width 2"] | None = None
    ) -> Float[np.ndarray, "height width 2"]:
        """Generate the field of a record that exists, in new memory or in `out` (float32)."""
        settings = self.settings
        sequence = np.random.SeedSequence(settings.grid.seed, spawn_key=(DOMAIN, index))
        numbers = np.random.default_rng(sequence).random(_PARAMETERS)
        velocities = settings.displacements(numbers, np) * settings.grid.pixel_velocity
        field = np.empty(velocities.shape, np.float32) if out is None else out
        field[...] = velocities
        if settings.closed_form.noise:
            field += self._noise.generate(index)
        return field


def analytic_fields(
    numbers: UInt32[Array, "2 fields"], settings: AnalyticSettings
) -> Float[Array, "fields height width 2"]:
    """Generate analytic fields; field i depends on the settings and `numbers[:, i]` alone.

    They have the distribution of `AnalyticFields` and not its values: the random numbers are JAX's.
    To be called under `jax.jit`, with the settings as constants.

    Args:
        numbers: Seed of the data set and number of the record, for each field.
        settings: The distribution of the fields; their seed is not used, so that one program serves
            all seeds.

    Returns:
        Velocities (x, y) in length units per second, float32.
    """

    def generate(number: UInt32[Array, "2"]) -> Float[Array, "height width 2"]:
        base = jax.random.fold_in(jax.random.PRNGKey(DOMAIN), number[0])
        key = jax.random.fold_in(base, number[1])
        field: Array = settings.displacements(uniform(key, shape=(_PARAMETERS,)), jnp)
        return field * settings.grid.pixel_velocity

    fields: Array = jax.vmap(generate, in_axes=1)(numbers)
    if not settings.closed_form.noise:
        return fields
    return fields + kinematic_fields(numbers, settings.grid)
