"""The tuples of tensors that users see."""

# Annotations are evaluated here, so that help(Batch) shows shapes and dtypes.

import sys
from collections.abc import Iterator
from opcode import opmap
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, no_type_check

import torch
from jaxtyping import Bool, Float, Int, Real, UInt32

from synthpix_torch.interop.dlpack import Bridge
from synthpix_torch.render.programs import Rendered

_UNPACK: Final = opmap["UNPACK_SEQUENCE"]


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

    @no_type_check  # A checker would wrap the method, whose caller would be the wrapper.
    def __iter__(self) -> Iterator[Any]:
        """Iterate over the fields.

        Raises:
            ValueError: The fields are unpacked into another number of names.
        """
        if not torch.compiler.is_compiling():
            _refuse_unpacking(sys._getframe(1), len(self))
        return tuple.__iter__(self)

    def __repr__(self) -> str:
        return _describe(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (type(self), *_picklable(self))


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

    @no_type_check  # A checker would wrap the method, whose caller would be the wrapper.
    def __iter__(self) -> Iterator[Any]:
        """Iterate over the fields.

        Raises:
            ValueError: The fields are unpacked into another number of names.
        """
        if not torch.compiler.is_compiling():
            _refuse_unpacking(sys._getframe(1), len(self))
        return tuple.__iter__(self)

    def __repr__(self) -> str:
        return _describe(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (type(self), *_picklable(self))


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


def _refuse_unpacking(caller: FrameType, fields: int) -> None:
    """Refuse `for images, flow_fields in dataset`, which Python refuses without saying why."""
    code, at = caller.f_code.co_code, caller.f_lasti
    if code[at] == _UNPACK and code[at + 1] != fields:
        raise ValueError(
            f"A batch has {fields} fields and cannot be unpacked into {code[at + 1]}: write "
            "`for batch in dataset` and use batch.images and batch.flow_fields."
        )


def _describe(batch: Batch | SynthPixBatch) -> str:
    name, images = type(batch).__name__, batch[0]
    if not isinstance(images, torch.Tensor) or images.ndim < 3:
        # The user's code has put something else into the fields.
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in batch._asdict().items())})"
    height, width = images.shape[-2:]
    dtype = str(images.dtype).removeprefix("torch.")
    return (
        f"<{name} {batch.number}: {len(images)} image pairs of {height} x {width} px with flow "
        f"fields, {dtype}, {images.device}>"
    )


def _picklable(batch: Batch | SynthPixBatch) -> tuple[Any, ...]:
    # Python's pickle cannot load uint32 tensors of torch.
    keys = batch.keys
    if isinstance(keys, torch.Tensor) and keys.dtype == torch.uint32:
        return (*batch._replace(keys=keys.view(torch.int32)),)
    return (*batch,)


def _unpickle(kind: type[Batch | SynthPixBatch], *fields: Any) -> Batch | SynthPixBatch:
    batch = kind(*fields)
    if isinstance(batch.keys, torch.Tensor) and batch.keys.dtype == torch.int32:
        return batch._replace(keys=batch.keys.view(torch.uint32))
    return batch
