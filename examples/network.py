"""A compact correlation network: displacement from two particle images, coarse to fine.

It does what iterative cross-correlation with image deformation does, with learned features: it
searches at a quarter of the resolution, deforms the second features by the displacement that was
found, and solves for the rest by weighted least squares in windows (Lucas & Kanade 1981), again
and again with the same weights. It learns the features, how much each pixel counts, so that
particles without a partner do not, and the size of the windows. The outer loop is that of RAFT
(Teed & Deng 2020).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import nn
from torch.nn import functional as F


class CorrelationNetwork(nn.Module):
    """Estimate the displacement between two images at every pixel.

    Args:
        radius: Search radius in pixels of a quarter of the resolution: the largest displacement is
            about 4 * radius pixels.
        alignments: Steps of least squares, with shared weights.
    """

    def __init__(self, *, radius: int = 3, alignments: int = 4) -> None:
        super().__init__()
        self.alignments = alignments
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 12, 3, padding=1),
        )
        self.features4 = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(12, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
        )
        self.search = Search(32, radius)
        self.align = Alignment(12)

    def forward(self, images: Float[torch.Tensor, "n 2 h w"]) -> list[torch.Tensor]:
        """Return the displacement in pixels after each step, (n, 2, h, w), the last the best.

        Args:
            images: The pair as channels, any linear grey scale; h and w divisible by 4.
        """
        mean = images.mean((2, 3), keepdim=True)
        pairs = (images - mean) / images.std((2, 3), keepdim=True).clamp_min(1e-6)
        features = self.features(
            pairs.flatten(0, 1)[:, None].contiguous(memory_format=torch.channels_last)
        )
        first, second = self.features4(features).unflatten(0, (-1, 2)).unbind(1)
        flows = [resize(self.search(first, second), images.shape[2:])]
        first, second = features.float().unflatten(0, (-1, 2)).unbind(1)
        for _ in range(self.alignments):
            flow = flows[-1].detach()
            flows.append(self.align(first, warp(second, flow), flow))
        return flows


class Search(nn.Module):
    """Find the shift between two feature maps, up to `radius` pixels of the maps.

    The shift is the mean of all shifts, weighted by what the network makes of their correlations.
    """

    shifts: torch.Tensor

    def __init__(self, channels: int, radius: int, *, width: int = 64) -> None:
        super().__init__()
        self.radius = radius
        steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
        self.register_buffer("shifts", torch.cartesian_prod(steps, steps).flip(1).T.contiguous())
        count = len(steps) ** 2
        self.layers = nn.Sequential(
            nn.Conv2d(count + channels, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, count, 1),
        )
        self.gain = nn.Parameter(torch.tensor(1.0))

    def forward(
        self, first: Float[torch.Tensor, "n c y x"], second: Float[torch.Tensor, "n c y x"]
    ) -> Float[torch.Tensor, "n 2 y x"]:
        """Return the shift in pixels of the maps, float32."""
        volume = correlate(first, second, self.radius)
        window = F.avg_pool2d(volume, 5, stride=1, padding=2)
        scores = self.layers(torch.cat([volume, first], 1)) + self.gain * window
        return torch.einsum("nsyx,cs->ncyx", scores.float().softmax(1), self.shifts)


class Alignment(nn.Module):
    """Improve a displacement by one step of least squares in windows around each pixel.

    Args:
        channels: Features of each pixel.
        sigmas: Standard deviations of the Gaussian windows in pixels. The network mixes them at
            each pixel, for the sums of the least squares and to smooth the displacement.
    """

    def __init__(
        self, channels: int, *, sigmas: tuple[float, ...] = (1.5, 3.0, 6.0), width: int = 24
    ) -> None:
        super().__init__()
        self.sigmas = sigmas
        self.layers = nn.Sequential(
            nn.Conv2d(3 * channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.weights = nn.Conv2d(width, channels, 1)
        self.windows = nn.Sequential(
            nn.Conv2d(width + 5 * len(sigmas), width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * len(sigmas) + 1, 1),
        )
        self.damping = nn.Parameter(torch.tensor(-4.0))

    def forward(
        self,
        first: Float[torch.Tensor, "n c h w"],
        second: Float[torch.Tensor, "n c h w"],
        flow: Float[torch.Tensor, "n 2 h w"],
    ) -> Float[torch.Tensor, "n 2 h w"]:
        """Return a better displacement than `flow`, by which `second` is deformed, in pixels."""
        rest = first - second
        seen = self.layers(torch.cat([first, second, rest], 1))
        weights = F.softplus(self.weights(seen).float())
        x, y = gradients((first + second) / 2)
        products = [(weights * p).sum(1) for p in (x * x, x * y, y * y, x * rest, y * rest)]
        sums = self._in_windows(torch.stack(products, 1))
        choice = self.windows(torch.cat([seen, sums.flatten(1, 2).asinh()], 1)).float()
        windows, smoothing = choice.split([len(self.sigmas), len(self.sigmas) + 1], 1)
        flow = flow + solve(mix(windows, sums), self.damping.exp()).clamp(-2, 2)
        return mix(smoothing, torch.cat([flow[:, None], self._in_windows(flow)], 1))

    def _in_windows(
        self, maps: Float[torch.Tensor, "n c h w"]
    ) -> Float[torch.Tensor, "n windows c h w"]:
        return torch.stack([blur(maps, sigma) for sigma in self.sigmas], 1)


def mix(
    scores: Float[torch.Tensor, "n k h w"], maps: Float[torch.Tensor, "n k c h w"]
) -> Float[torch.Tensor, "n c h w"]:
    """Average k maps at each pixel, with the softmax of the scores as weights."""
    return (scores.softmax(1)[:, :, None] * maps).sum(1)


def solve(
    sums: Float[torch.Tensor, "n 5 h w"], damping: Float[torch.Tensor, ""]
) -> Float[torch.Tensor, "n 2 h w"]:
    """Solve the normal equations [[xx, xy], [xy, yy]] step = [xr, yr] at each pixel.

    Args:
        sums: Sums of products of gradients (x, y) and differences (r): xx, xy, yy, xr, yr.
        damping: Is added to xx and yy, so that there is no step where nothing is to be seen.
    """
    xx, xy, yy, xr, yr = sums.unbind(1)
    xx, yy = xx + damping, yy + damping
    return torch.stack([yy * xr - xy * yr, xx * yr - xy * xr], 1) / (xx * yy - xy * xy)[:, None]


def blur(maps: Float[torch.Tensor, "n c h w"], sigma: float) -> Float[torch.Tensor, "n c h w"]:
    """Average in Gaussian windows of a standard deviation in pixels, cut at the borders."""
    with torch.autocast(maps.device.type, enabled=False):
        for _ in range(2):
            maps = (_gaussians(maps.shape[2], sigma, maps.device) @ maps).mT
        return maps


def _gaussians(length: int, sigma: float, device: torch.device) -> torch.Tensor:
    places = torch.arange(length, device=device)
    return (-0.5 * ((places[:, None] - places) / sigma) ** 2).softmax(1)


def gradients(maps: Float[torch.Tensor, "n c h w"]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the central differences to the right and down, each (n, c, h, w)."""
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    return (
        (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2,
        (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2,
    )


def resize(
    flow: Float[torch.Tensor, "n 2 _ _"], shape: tuple[int, int] | torch.Size
) -> Float[torch.Tensor, "n 2 y x"]:
    """Interpolate a displacement to another image size, and express it in pixels of that size."""
    grown = F.interpolate(flow, size=tuple(shape), mode="bilinear", align_corners=False)
    return grown * (shape[0] / flow.shape[2])


def correlate(
    first: Float[torch.Tensor, "n c y x"], second: Float[torch.Tensor, "n c y x"], radius: int
) -> Float[torch.Tensor, "n shifts y x"]:
    """Compare the features of each pixel with those of its neighbours in the other image.

    Returns:
        The scaled product of the features, for all shifts by up to `radius` pixels in y and x.
    """
    height, width = first.shape[2:]
    block, reach = 16, 2 * radius + 1
    missing = -width % block
    # Rows of pixels are multiplied in blocks: (16, c) by (c, 16 + 2 r), of which a band is needed.
    left = F.pad(first, (0, missing)).permute(0, 2, 3, 1).unflatten(2, (-1, block))
    right = F.pad(second, (radius, radius + missing, radius, radius)).permute(0, 2, 3, 1)
    rows = []
    for dy in range(reach):
        windows = right[:, dy : dy + height].unfold(2, block + reach - 1, block)
        products = (left @ windows).flatten(-2)
        # In rows one element longer, the band is a column: (16, 2 r + 1).
        rows.append(F.pad(products, (0, block)).unflatten(-1, (block, -1))[..., :reach])
    volume = torch.cat(rows, -1).flatten(2, 3)[:, :, :width]
    return volume.permute(0, 3, 1, 2).div(first.shape[1] ** 0.5)


def warp(
    features: Float[torch.Tensor, "n c y x"], flow: Float[torch.Tensor, "n 2 y x"]
) -> Float[torch.Tensor, "n c y x"]:
    """Sample the features at x + flow, bilinearly; outside, the value at the border."""
    height, width = features.shape[2:]
    y = torch.arange(height, dtype=torch.float32, device=flow.device)[:, None]
    x = torch.arange(width, dtype=torch.float32, device=flow.device)
    grid = torch.stack(
        [(flow[:, 0] + x) * (2 / (width - 1)), (flow[:, 1] + y) * (2 / (height - 1))], -1
    )
    sampled = F.grid_sample(features.float(), grid - 1, padding_mode="border", align_corners=True)
    return sampled.to(features.dtype)
