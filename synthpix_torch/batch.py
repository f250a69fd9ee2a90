"""The tuples of tensors that users see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int, Real, UInt32

from synthpix_torch.interop.dlpack import Bridge
from synthpix_torch.render.step import Rendered


class ImageParameters(NamedTuple):
    """Parameters drawn for each image pair.

    Attributes:
        seeding_densities: Particles per pixel.
        diameter_ranges: Smallest and largest particle diameter in pixels.
        intensity_ranges: Smallest and largest peak intensity in grey levels of 255.
        rho_ranges: Smallest and largest correlation coefficient of the particles' shape.
    """

    seeding_densities: Float[torch.Tensor, " n"]
    diameter_ranges: Real[torch.Tensor, "n 2"]
    intensity_ranges: Real[torch.Tensor, "n 2"]
    rho_ranges: Real[torch.Tensor, "n 2"]


class Batch(NamedTuple):
    """n image pairs with their flow fields, on the device of the dataset.

    Every tensor may be written to: no other batch shares its memory.

    Attributes:
        images: The pairs as channels, grey levels from 0 to 255 (or 0 to 1 with `scale_images`).
        flow_fields: The displacement from the first image to the second in pixels, or the velocity
            in the configured unit; channel 0 to the right, channel 1 down.
        mask: False in empty slots at the end of finite data or of an episode; images and flow
            fields are zero there.
        epoch: How often each record was used before in the stream.
        seeds: The random bits of each record (32 bits, shown as int32).
        keys: The key of each pair in JAX's random numbers.
        params: Parameters drawn for each pair; None for recorded images.
        done: True on the last step of an episode; None without episodes.
        files: The file of each flow field, "" in empty slots. A DataLoader makes a list of it.
        number: The number of this batch: `dataset.batch_at(number)` makes it again.
        valid_flow_mask: False where a body covers the flow field, which is zero there, and in empty
            slots; None without `body_mask`.
    """

    images: Float[torch.Tensor, "n 2 h w"]
    flow_fields: Float[torch.Tensor, "n 2 y x"]
    mask: Bool[torch.Tensor, " n"]
    epoch: Int[torch.Tensor, " n"]
    seeds: Int[torch.Tensor, " n"]
    keys: UInt32[torch.Tensor, "n k"]
    params: ImageParameters | None
    done: Bool[torch.Tensor, " n"] | None
    files: tuple[str, ...]
    number: int
    valid_flow_mask: Bool[torch.Tensor, "n y x"] | None = None

    @property
    def images1(self) -> Float[torch.Tensor, "n 1 h w"]:
        """The first images, a view of `images`."""
        return self.images[:, :1]

    @property
    def images2(self) -> Float[torch.Tensor, "n 1 h w"]:
        """The second images, a view of `images`."""
        return self.images[:, 1:]


class SynthPixBatch(NamedTuple):
    """A batch in synthpix's own layout (`layout="synthpix"`); the rest as in `Batch`.

    Attributes:
        images1: The first images.
        images2: The second images.
        flow_fields: Components last.
        params: As in `Batch`.
        done: As in `Batch`.
        mask: As in `Batch`.
        files: As in `Batch`.
        epoch: As in `Batch`.
        seeds: As in `Batch`.
        keys: As in `Batch`.
        number: As in `Batch`.
        valid_flow_mask: As in `Batch`.
    """

    images1: Float[torch.Tensor, "n h w"]
    images2: Float[torch.Tensor, "n h w"]
    flow_fields: Float[torch.Tensor, "n y x 2"]
    params: ImageParameters | None
    done: Bool[torch.Tensor, " n"] | None
    mask: Bool[torch.Tensor, " n"]
    files: tuple[str, ...]
    epoch: Int[torch.Tensor, " n"]
    seeds: Int[torch.Tensor, " n"]
    keys: UInt32[torch.Tensor, "n k"]
    number: int
    valid_flow_mask: Bool[torch.Tensor, "n y x"] | None = None


# To a type checker every batch has torch's layout; layout="synthpix" is chosen explicitly.
if TYPE_CHECKING:
    AnyBatch: TypeAlias = Batch
else:
    AnyBatch = Batch | SynthPixBatch


def to_batch(
    rendered: Rendered, *, files: tuple[str, ...], number: int, bridge: Bridge
) -> AnyBatch:
    """Wrap the arrays of one batch as tensors that share their memory.

    Args:
        rendered: The arrays; nothing else uses them afterwards.
        files: The file of each record.
        number: The number of the batch.
        bridge: Keeps the memory until torch has finished with it.

    Returns:
        A `Batch`, or a `SynthPixBatch` if `rendered` has synthpix's layout.
    """
    bridge.release()
    share = bridge.to_torch
    params = rendered.params and ImageParameters(
        seeding_densities=share(rendered.params.seeding_densities),
        diameter_ranges=share(rendered.params.diameter_ranges),
        intensity_ranges=share(rendered.params.intensity_ranges),
        rho_ranges=share(rendered.params.rho_ranges),
    )
    images = tuple(share(image) for image in rendered.images)
    rest: dict[str, Any] = {
        "flow_fields": share(rendered.flow_fields),
        "mask": share(rendered.mask),
        "epoch": share(rendered.epoch),
        "seeds": share(rendered.seeds),
        "keys": share(rendered.keys),
        "params": params,
        "done": None if rendered.done is None else share(rendered.done),
        "files": files,
        "number": number,
        "valid_flow_mask": (
            None if rendered.valid_flow_mask is None else share(rendered.valid_flow_mask)
        ),
    }
    if len(images) == 1:
        return Batch(images=images[0], **rest)
    return SynthPixBatch(images1=images[0], images2=images[1], **rest)  # type: ignore[return-value]
