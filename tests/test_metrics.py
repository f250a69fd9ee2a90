"""Errors of estimated flow fields agree with NumPy on the same pixels."""

import numpy as np
import pytest
import torch

from synthpix_torch.metrics import angular_errors, end_point_errors
from synthpix_torch.torchmetrics import FlowFieldErrors


def fields(n: int = 5, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an estimate and the truth it deviates from."""
    random = torch.Generator().manual_seed(seed)
    truth = 4 * torch.randn(n, 2, 16, 12, generator=random)
    return truth + 0.3 * torch.randn(n, 2, 16, 12, generator=random), truth


def test_the_end_point_error_is_the_length_of_the_difference() -> None:
    estimate = torch.zeros(1, 2, 1, 2)
    truth = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
    assert end_point_errors(estimate, truth).tolist() == [[[5.0, 0.0]]]


def test_the_angular_error_is_the_angle_of_barron() -> None:
    estimate, truth = fields()
    (u, v), (a, b) = estimate.double().numpy().swapaxes(0, 1), truth.double().numpy().swapaxes(0, 1)
    cosine = (u * a + v * b + 1) / np.sqrt((u**2 + v**2 + 1) * (a**2 + b**2 + 1))
    np.testing.assert_allclose(
        angular_errors(estimate, truth), np.degrees(np.arccos(cosine)), rtol=1e-5
    )
    tiny = truth.clone()
    tiny[:, 0] += 1e-4
    assert (angular_errors(tiny, truth) > 0).all()
    assert (angular_errors(truth, truth) == 0).all()


def test_batches_and_ranks_add_up_to_the_summary_of_all_pixels() -> None:
    estimate, truth = fields(8)
    covered = torch.zeros(8, 16, 12, dtype=torch.bool)
    covered[:, 3:5] = True
    filled = torch.tensor([True] * 6 + [False] * 2)
    one, other = FlowFieldErrors(), FlowFieldErrors()
    for metric, part in ((one, slice(0, 3)), (other, slice(3, 5)), (one, slice(5, 8))):
        metric.update(estimate[part], truth[part], filled[part], ~covered[part])
    # What torchmetrics does with the states of two ranks.
    for name in ("count", "total", "angles", "larger", "histogram"):
        setattr(one, name, getattr(one, name) + getattr(other, name))
    valid = (~covered & filled[:, None, None]).numpy()
    errors = np.linalg.norm((estimate - truth).numpy(), axis=1)[valid]
    found = {name: float(value) for name, value in one.compute().items()}
    assert found["epe"] == pytest.approx(errors.mean(), rel=1e-6)
    assert found["epe_median"] == pytest.approx(np.median(errors), rel=4e-3)
    assert found["epe_per_100_px"] == pytest.approx(100 * errors.mean(), rel=1e-6)
    assert found["angle"] == pytest.approx(
        angular_errors(estimate, truth).numpy()[valid].mean(), rel=1e-5
    )
    assert found["over_0.1_px"] == pytest.approx((errors > 0.1).mean())
    assert found["over_0.5_px"] == pytest.approx((errors > 0.5).mean())
    assert found["over_1_px"] == pytest.approx((errors > 1).mean())


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_pixels_every_error_is_nan() -> None:
    assert all(torch.isnan(value) for value in FlowFieldErrors().compute().values())


def test_an_estimate_of_nan_is_named() -> None:
    estimate, truth = fields(1)
    estimate[0, :, 0, 0] = torch.nan
    metric = FlowFieldErrors()
    with pytest.raises(ValueError, match=r"1 of 192 .* not finite: check the network's output"):
        metric.update(estimate, truth)
    assert metric.count == 0


def test_fields_of_another_size_are_refused() -> None:
    estimate, truth = fields(1)
    with pytest.raises(ValueError, match=r"\(1, 2, 8, 6\).* Resize the estimate"):
        end_point_errors(estimate[..., ::2, ::2], truth)
