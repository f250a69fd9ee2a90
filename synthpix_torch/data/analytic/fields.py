"""Analytic flow fields by record number, on the host or on the device."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from synthpix_torch.data.analytic.flows import Parameters
from synthpix_torch.data.analytic.settings import DOMAIN, AnalyticSettings
from synthpix_torch.data.kinematic import KinematicFields, kinematic_fields
from synthpix_torch.draws import uniform

_PARAMETERS = len(Parameters._fields)


class AnalyticFields:
    """Random access to the fields of an analytic flow.

    Field i depends on the settings and i alone, and is the same in every process and thread.
    """

    def __init__(self, num_examples: int, settings: AnalyticSettings) -> None:
        """Describe the fields; none is generated before it is read.

        Args:
            num_examples: Number of fields.
            settings: Their distribution.
        """
        self._num_examples = num_examples
        self._settings = settings
        self._noise = KinematicFields(num_examples, settings.grid)

    def __len__(self) -> int:
        """Return the number of fields."""
        return self._num_examples

    def __repr__(self) -> str:
        """Represent the number of fields and every setting."""
        return f"{type(self).__name__}({self._num_examples}, {self._settings})"

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Generate a field.

        Args:
            index: Number of the record.

        Returns:
            `flow_fields`: velocities (x, y) in length units per second, float32 of shape
            (height, width, 2); `file`: a name of the record.

        Raises:
            IndexError: There is no such record.
        """
        settings = self._settings
        if not 0 <= index < self._num_examples:
            raise IndexError(f"There are {self._num_examples} analytic fields, not {index + 1}.")
        sequence = np.random.SeedSequence(settings.grid.seed, spawn_key=(DOMAIN, index))
        numbers = np.random.default_rng(sequence).random(_PARAMETERS)
        field = settings.displacements(numbers, np) * settings.grid.pixel_velocity
        field = field.astype(np.float32)
        if settings.closed_form.noise:
            field += self._noise[index]["flow_fields"]
        return {"flow_fields": field, "file": f"{settings.flow}://{index}"}


def analytic_fields(
    records: Int[Array, " fields"], settings: AnalyticSettings
) -> Float[Array, "fields height width 2"]:
    """Generate analytic fields; field i depends on the settings and `records[i]` alone.

    They have the distribution of `AnalyticFields` and not its values: the random numbers are JAX's.
    To be called under `jax.jit`, with the settings as constants.

    Args:
        records: Number of each record, taken modulo 2^32.
        settings: The distribution of the fields.

    Returns:
        Velocities (x, y) in length units per second, float32.
    """
    base = jax.random.fold_in(jax.random.PRNGKey(DOMAIN), np.uint32(settings.grid.seed))

    def generate(record: Int[Array, ""]) -> Float[Array, "height width 2"]:
        key = jax.random.fold_in(base, record.astype(jnp.uint32))
        field: Array = settings.displacements(uniform(key, shape=(_PARAMETERS,)), jnp)
        return field * settings.grid.pixel_velocity

    fields: Array = jax.vmap(generate)(records)
    return (
        fields + kinematic_fields(records, settings.grid) if settings.closed_form.noise else fields
    )
