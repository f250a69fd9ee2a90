"""The arguments of a dataset beside its configuration: checked, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import torch

from synthpix_torch.checks import check_integer, shown
from synthpix_torch.config.config import Config
from synthpix_torch.data.records import FlowFieldSource
from synthpix_torch.render.output import Appearance
from synthpix_torch.render.renderers import RENDERERS

LAYOUTS: Final = ("torch", "synthpix")
IMAGE_DTYPES: Final = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}

_BOUNDS: Final = {
    "streams": (1, 2**31 - 1),
    "epoch_length": (1, 10**15),
    "ahead": (0, 1000),
    "rank": (0, 2**31 - 1),
    "world_size": (1, 2**31 - 1),
}
_OPTIONAL: Final = ("epoch_length", "rank", "world_size")
_OF_THE_STREAM: Final = ("renderer", "streams", "epoch_length", "layout", "scale_images")


class Arguments(NamedTuple):
    """The keyword arguments of `SynthPixDataset`, which documents them."""

    source: FlowFieldSource | None
    renderer: str
    streams: int
    rank: int | None
    world_size: int | None
    epoch_length: int | None
    layout: str
    image_dtype: torch.dtype
    scale_images: bool
    device: str | torch.device | None
    ahead: int

    def check(self, config: Config) -> None:
        """Raise unless each argument has a possible value that fits the configuration.

        Raises:
            TypeError: A number is not an integer.
            ValueError: A value is impossible or does not fit.
        """
        for name, value, choices in (
            ("renderer", self.renderer, tuple(RENDERERS)),
            ("layout", self.layout, LAYOUTS),
            ("image_dtype", self.image_dtype, tuple(IMAGE_DTYPES)),
            ("scale_images", self.scale_images, (False, True)),
        ):
            # 1 is equal to True, but a state tells them apart.
            if not isinstance(value, type(choices[0])) or value not in choices:
                allowed = ", ".join(map(repr, choices))
                raise ValueError(f"{name} must be one of {allowed}, not {shown(value)}.")
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if not (name in _OPTIONAL and value is None):
                check_integer(name, value, least, most)
        if self.epoch_length is not None and config.episode_length:
            raise ValueError("A pass is an episode here: leave out epoch_length.")

    @property
    def appearance(self) -> Appearance:
        """Layout, dtype and renderer of the batches."""
        return Appearance(
            self.renderer, self.layout, IMAGE_DTYPES[self.image_dtype], self.scale_images
        )

    @property
    def recipe(self) -> dict[str, Any]:
        """The arguments that define the stream and its passes, as JSON; see `from_recipe`."""
        return {name: getattr(self, name) for name in _OF_THE_STREAM} | {
            "image_dtype": IMAGE_DTYPES[self.image_dtype]
        }


def rebuilding(
    recipe: Mapping[str, Any],
    *,
    config: Mapping[str, Any] | None,
    arguments: Mapping[str, Any],
    place: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configuration and the keyword arguments that build a stored dataset again.

    Args:
        recipe: `SynthPixDataset.recipe`.
        config: Keys of the configuration to change.
        arguments: Arguments to change.
        place: What the recipe was stored in, for the error.

    Raises:
        ValueError: The arguments are not those of a recipe, or the dataset had a source of its own
            and none is given.
    """
    options = {**from_recipe(recipe["arguments"]), **arguments}
    if recipe["source"] is not None and options.get("source") is None:
        raise ValueError(
            f"The dataset was saved with a source of its own ({recipe['source']}), which is "
            f"not in the {place}: pass source."
        )
    return {**recipe["config"], **(config or {})}, options


def from_recipe(recipe: Any) -> dict[str, Any]:
    """Read the keyword arguments of a dataset from `Arguments.recipe`.

    Raises:
        ValueError: It is no such recipe.
    """
    dtypes = {name: dtype for dtype, name in IMAGE_DTYPES.items()}
    known = {*_OF_THE_STREAM, "image_dtype"}
    if not isinstance(recipe, dict) or not {"image_dtype"} <= recipe.keys() <= known:
        raise ValueError(
            f"The arguments of the dataset in the checkpoint are {shown(recipe)}, but must be "
            f"{', '.join(sorted(known))}: build the dataset from a configuration instead."
        )
    dtype = recipe["image_dtype"]
    if not isinstance(dtype, str) or dtype not in dtypes:
        raise ValueError(
            f"The image_dtype of the dataset in the checkpoint is {shown(dtype)}, but must be one "
            f"of {', '.join(dtypes)}: pass image_dtype."
        )
    return recipe | {"image_dtype": dtypes[dtype]}
