"""A compact correlation network: displacement from two particle images, coarse to fine.

It does what an iterative cross-correlation with image deformation does, with learned features:
features of both images are compared over a search area, the second features are warped by the
displacement that was found, and the rest is searched again with the same weights. The building
blocks are those of RAFT (Teed & Deng 2020) and PWC-Net (Sun et al. 2018).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import nn
from torch.nn import functional as F


class CorrelationNetwork(nn.Module):
    """Estimate the displacement between two images at every pixel.

    Args:
        channels: Features of each pixel.
        radius: Search radius of the coarse search in pixels of a quarter of the resolution: the
            largest displacement is about 4 * radius pixels.
        refinements: Searches at half the resolution, with shared weights.
    """

    def __init__(self, *, channels: int = 32, radius: int = 3, refinements: int = 3) -> None:
        super().__init__()
        self.refinements = refinements
        self.features2 = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, channels, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.features4 = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.coarse = Search(channels, radius)
        self.fine = Search(channels + 2, 3)

    def forward(self, images: Float[torch.Tensor, "n 2 h w"]) -> list[torch.Tensor]:
        """Return the displacement in pixels after each search, (n, 2, h, w), the last the best.

        Args:
            images: The pair as channels, any linear grey scale; h and w divisible by 4.
        """
        mean = images.mean((2, 3), keepdim=True)
        pairs = (images - mean) / images.std((2, 3), keepdim=True).clamp_min(1e-6)
        shape = images.shape[2:]
        features = self.features2(
            pairs.flatten(0, 1)[:, None].contiguous(memory_format=torch.channels_last)
        )
        first, second = features.unflatten(0, (-1, 2)).unbind(1)
        first4, second4 = self.features4(features).unflatten(0, (-1, 2)).unbind(1)
        found = self.coarse(first4, second4, first4)
        flows = [resize(found, shape)]
        flow = resize(found, first.shape[2:])
        for _ in range(self.refinements):
            flow = flow.detach()
            context = torch.cat([first, flow.to(first.dtype)], 1)
            flow = flow + self.fine(first, warp(second, flow), context)
            flows.append(resize(flow, shape))
        return flows


class Search(nn.Module):
    """Find the shift between two feature maps, up to `radius` pixels of the maps.

    The shift is the mean of all shifts, weighted by what the network makes of their correlations.
    """

    shifts: torch.Tensor

    def __init__(self, context: int, radius: int, *, width: int = 64) -> None:
        super().__init__()
        self.radius = radius
        steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
        self.register_buffer("shifts", torch.cartesian_prod(steps, steps).flip(1).T.contiguous())
        count = len(steps) ** 2
        self.layers = nn.Sequential(
            nn.Conv2d(count + context, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, count, 1),
        )
        self.gain = nn.Parameter(torch.tensor(1.0))

    def forward(
        self, first: torch.Tensor, second: torch.Tensor, context: torch.Tensor
    ) -> Float[torch.Tensor, "n 2 y x"]:
        """Return the shift in pixels of the maps, float32."""
        volume = correlate(first, second, self.radius)
        window = F.avg_pool2d(volume, 5, stride=1, padding=2)
        scores = self.layers(torch.cat([volume, context], 1)) + self.gain * window
        return torch.einsum("nsyx,cs->ncyx", scores.float().softmax(1), self.shifts)


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
