"""Records of files that hold variables by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Num

from synthpix_torch.checks import shown
from synthpix_torch.config.config import Config

_IMAGES: Final = ("I0", "I1")
"""Variables of the recorded images, unless the configuration names others."""

_SHOWN: Final = 10
"""Variables that an error lists at most."""


def image_names(config: Config) -> Sequence[str]:
    """Return the names of the variables of recorded images; none if images are rendered."""
    return (config.image_variables or _IMAGES) if config.include_images else ()


def make_record(
    path: str,
    arrays: Mapping[str, np.ndarray],
    *,
    flow: Sequence[str],
    images: Sequence[str],
    present: Callable[[str], Sequence[str]],
) -> dict[str, Any]:
    """Make a record of the variables of a file.

    Args:
        path: The file.
        arrays: The variables by name, without those that the file lacks.
        flow: Name of the flow field, or of its components to the right and down.
        images: Names of the recorded images, or none.
        present: Returns the names of all variables of a file, for error messages.

    Returns:
        `flow_fields` of shape (H, W, 2), `file`, and with images `images1` and `images2`.

    Raises:
        ValueError: A variable is missing, or they are no flow field.
    """
    for key, names in (("flow_variables", flow), ("image_variables", images)):
        for name in names:
            if name not in arrays:
                found = present(path)
                some = [*map(shown, found[:_SHOWN]), *(["..."] if len(found) > _SHOWN else [])]
                raise ValueError(
                    f"{path} holds no variable {shown(name)}, but {', '.join(some) or 'nothing'}: "
                    f"set {key}."
                )
    pair = {f"images{number}": arrays[name] for number, name in enumerate(images, start=1)}
    flow_field = _flow_field({name: arrays[name] for name in flow}, path)
    return {"flow_fields": flow_field, "file": path, **pair}


def _flow_field(components: Mapping[str, np.ndarray], path: str) -> Num[np.ndarray, "..."]:
    arrays = list(components.values())
    first = arrays[0]
    if len(arrays) == 1:
        leads = first.ndim == 3 and first.shape[0] == 2 != first.shape[2]
        return np.moveaxis(first, 0, 2) if leads else first
    if any(one.ndim != 2 or one.shape != first.shape for one in arrays):
        shapes = [f"{shown(name)} of shape {one.shape}" for name, one in components.items()]
        raise ValueError(
            f"{path} holds {' and '.join(shapes)}: both components must have one shape (H, W)."
        )
    return np.stack(arrays, axis=-1)
