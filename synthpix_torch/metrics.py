"""Errors of estimated flow fields, per pixel and summarised.

`synthpix_torch.torchmetrics.FlowFieldErrors` accumulates them over batches and ranks.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float


def end_point_errors(
    estimate: Float[torch.Tensor, "n 2 y x"], flow_fields: Float[torch.Tensor, "n 2 y x"]
) -> Float[torch.Tensor, "n y x"]:
    """Compute the end-point error of every pixel: the length of the difference of the vectors.

    Args:
        estimate: Estimated displacements in pixels.
        flow_fields: True displacements in pixels.

    Returns:
        In pixels. Differentiable except where the difference is zero.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes(estimate, flow_fields)
    errors: torch.Tensor = torch.linalg.vector_norm(estimate - flow_fields, dim=1)
    return errors


def angular_errors(
    estimate: Float[torch.Tensor, "n 2 y x"], flow_fields: Float[torch.Tensor, "n 2 y x"]
) -> Float[torch.Tensor, "n y x"]:
    """Compute the angular error of every pixel: the angle between (u, v, 1) of both.

    The third component makes the angle defined, and small, where the displacement is zero
    (Barron, Fleet & Beauchemin 1994, "Performance of optical flow techniques", eq. 2.6).

    Args:
        estimate: Estimated displacements in pixels.
        flow_fields: True displacements in pixels.

    Returns:
        In degrees.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes(estimate, flow_fields)
    u, v = estimate.double().unbind(1)
    u_true, v_true = flow_fields.double().unbind(1)
    # The arctangent is exact for small angles, where the arccosine is not.
    cross = torch.stack([v - v_true, u_true - u, u * v_true - v * u_true]).norm(dim=0)
    dot = u * u_true + v * v_true + 1
    return torch.rad2deg(torch.atan2(cross, dot)).to(estimate.dtype)


def valid_pixels(
    flow_fields: Float[torch.Tensor, "n 2 y x"],
    mask: Bool[torch.Tensor, " n"] | None = None,
    valid_flow_mask: Bool[torch.Tensor, "n y x"] | None = None,
) -> Bool[torch.Tensor, "n y x"]:
    """Return the pixels whose flow field counts.

    Args:
        flow_fields: True displacements.
        mask: `Batch.mask`; pairs of empty slots do not count.
        valid_flow_mask: `Batch.valid_flow_mask`; pixels of a body do not count.
    """
    valid = torch.ones_like(flow_fields[:, 0], dtype=torch.bool)
    if mask is not None:
        valid &= mask[:, None, None]
    if valid_flow_mask is not None:
        valid &= valid_flow_mask
    return valid


def _check_shapes(estimate: torch.Tensor, flow_fields: torch.Tensor) -> None:
    if estimate.shape != flow_fields.shape or estimate.ndim != 4 or estimate.shape[1] != 2:
        raise ValueError(
            f"Both flow fields must have the same shape (n, 2, y, x), not "
            f"{tuple(estimate.shape)} and {tuple(flow_fields.shape)}. Resize the estimate to the "
            "flow field first, and scale its vectors if they are in pixels of a smaller image."
        )
