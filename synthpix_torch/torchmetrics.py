"""`FlowFieldErrors`, a metric of torchmetrics (extra `metrics`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float

from synthpix_torch.extra import required_by
from synthpix_torch.metrics import angular_errors, end_point_errors, valid_pixels

with required_by("FlowFieldErrors needs torchmetrics", "torchmetrics", extra="metrics"):
    from torchmetrics import Metric

# Bins of the end-point error, equal in its logarithm: the median is exact to half a bin, 0.2 %.
_SMALLEST, _LARGEST, _BINS_PER_E = 1e-5, 1e4, 256


class FlowFieldErrors(Metric):
    """Summarise the errors of estimated flow fields over batches and ranks.

    `compute` returns a dict of scalars:

    - `epe`: mean end-point error in pixels;
    - `epe_median`: median end-point error in pixels, to 0.2 %;
    - `epe_per_100_px`: `epe` in pixels per 100 pixels (Cai et al. 2019, Exp. Fluids 60:73);
    - `angle`: mean angular error in degrees (`synthpix_torch.metrics.angular_errors`);
    - `over_<threshold>_px`: for each threshold, the share of pixels with a larger end-point error.

    All are NaN before the first pixel. The memory is constant, and the sums are exact over ranks.

    Args:
        thresholds: End-point errors in pixels.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    count: torch.Tensor
    total: torch.Tensor
    angles: torch.Tensor
    larger: torch.Tensor
    histogram: torch.Tensor

    def __init__(self, *, thresholds: Sequence[float] = (0.1, 0.5, 1.0)) -> None:
        super().__init__()
        self.thresholds = tuple(thresholds)
        bins = round(_BINS_PER_E * float(torch.log(torch.tensor(_LARGEST / _SMALLEST)))) + 1
        for name, shape in (
            ("count", ()),
            ("total", ()),
            ("angles", ()),
            ("larger", (len(self.thresholds),)),
            ("histogram", (bins,)),
        ):
            zeros = torch.zeros(shape, dtype=torch.float64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(
        self,
        estimate: Float[torch.Tensor, "n 2 y x"],
        flow_fields: Float[torch.Tensor, "n 2 y x"],
        mask: Bool[torch.Tensor, " n"] | None = None,
        valid_flow_mask: Bool[torch.Tensor, "n y x"] | None = None,
    ) -> None:
        """Add the pixels of a batch.

        Args:
            estimate: Estimated displacements in pixels.
            flow_fields: True displacements in pixels.
            mask: `Batch.mask`; pairs of empty slots do not count.
            valid_flow_mask: `Batch.valid_flow_mask`; pixels of a body do not count.

        Raises:
            ValueError: The shapes differ, or an estimate is not finite.
        """
        valid = valid_pixels(flow_fields, mask, valid_flow_mask)
        errors = end_point_errors(estimate, flow_fields)[valid].double()
        if not bool(errors.isfinite().all()):
            raise ValueError(
                f"{int((~errors.isfinite()).sum())} of {errors.numel()} end-point errors are not "
                "finite: check the network's output for NaN."
            )
        self.count += errors.numel()
        self.total += errors.sum()
        self.angles += angular_errors(estimate, flow_fields)[valid].double().sum()
        thresholds = errors.new_tensor(self.thresholds)
        self.larger += (errors[:, None] > thresholds).sum(0)
        places = (errors.clamp(_SMALLEST, _LARGEST) / _SMALLEST).log() * _BINS_PER_E
        self.histogram += torch.bincount(places.round().long(), minlength=len(self.histogram))

    def compute(self) -> dict[str, torch.Tensor]:
        """Return the summary of all pixels added so far."""
        epe = self.total / self.count
        middle = (self.histogram.cumsum(0) < self.count / 2).sum()
        median = _SMALLEST * torch.exp(middle / _BINS_PER_E)
        return {
            "epe": epe,
            "epe_median": torch.where(self.count > 0, median, epe),
            "epe_per_100_px": 100 * epe,
            "angle": self.angles / self.count,
            **{
                f"over_{threshold:g}_px": share
                for threshold, share in zip(
                    self.thresholds, (self.larger / self.count).unbind(), strict=True
                )
            },
        }
