"""Draw the pictures of the documentation: python tests/gallery.py.

docs/configuration.md shows the strips, one or more panels for values of a key; README shows the
pair. `tests/reference.py` places the strips below the tables of their keys.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from ruamel.yaml import YAML

from synthpix_torch import SynthPixDataset
from synthpix_torch.pictures.blink import save_blinking
from synthpix_torch.pictures.colours import colour_flow_field
from synthpix_torch.pictures.figure import draw_both, draw_flow_field, draw_wheel
from synthpix_torch.pictures.views import Pair, largest_displacement, pairs_of, white_level

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "images"
SIZE = 64
ENLARGED = 2
GAP = 8
CAPTION = 18

Changes = Mapping[str, Any]
View = Literal["first image", "both images", "flow field"]


class Strip(NamedTuple):
    """A picture of one or more values of a key.

    Attributes:
        keys: The keys that the picture shows.
        text: What to see, for the page.
        view: The first image, both images with the first in red and the second in cyan, or the
            labels as colours.
        panels: Values to change in the configuration, by caption.
    """

    keys: tuple[str, ...]
    text: str
    view: View
    panels: Mapping[str, Changes]

    @property
    def path(self) -> Path:
        """The file of the picture."""
        return FOLDER / f"{self.keys[0]}.png"


def values(key: str, unit: str, *several: Any, also: Changes | None = None) -> dict[str, Changes]:
    """Make a panel for each value of a key; a range is that value alone."""
    panels: dict[str, Changes] = {}
    for value in several:
        content: Any = value
        if key.endswith("_ranges"):
            content = [(value, value)]
        elif key.endswith("_range"):
            content = (value, value)
        shown = value if isinstance(value, str) else f"{value:g}"
        panels[f"{shown} {unit}".strip()] = {**(also or {}), key: content}
    return panels


STRIPS = (
    Strip(
        ("velocities_per_pixel",),
        "The labels of one pair as colours: their number falls, their area is that of the image.",
        "flow field",
        values("velocities_per_pixel", "", 1.0, 0.5, 0.25, 0.125),
    ),
    Strip(
        ("seeding_density_range",),
        "The same area with more and more particles.",
        "first image",
        values("seeding_density_range", "per px", 0.005, 0.02, 0.05, 0.1),
    ),
    Strip(
        ("p_hide_img1", "p_hide_img2"),
        "`p_hide_img2` in still fluid; red particles are missing in the second image. "
        "`p_hide_img1` does the same to the first.",
        "both images",
        values("p_hide_img2", "", 0.0, 0.1, 0.25, 0.5, also={"scale_factor_range": (0.0, 0.0)}),
    ),
    Strip(
        ("diameter_ranges",),
        "Diameters as 2 sigma of the Gaussian image, the default of `diameter_definition`.",
        "first image",
        values(
            "diameter_ranges",
            "px",
            1.0,
            1.5,
            2.5,
            4.0,
            also={"ellipticity": 0.0, "seeding_density_range": (0.02, 0.02)},
        ),
    ),
    Strip(
        ("diameter_definition",),
        "A diameter of 4 px by both definitions.",
        "first image",
        values(
            "diameter_definition",
            "",
            "2 sigma",
            "e^-2",
            also={"diameter_ranges": [(4.0, 4.0)], "seeding_density_range": (0.01, 0.01)},
        ),
    ),
    Strip(
        ("intensity_ranges",),
        "Peaks of all particles at one grey level; in the last panel they lie between 20 and 250.",
        "first image",
        {
            **values("intensity_ranges", "", 50, 120, 250),
            "20 to 250": {"intensity_ranges": [(20, 250)]},
        },
    ),
    Strip(
        ("intensity_var",),
        "Variance of the peak between the images, in still fluid: red particles are darker in the "
        "second image, cyan ones brighter.",
        "both images",
        values(
            "intensity_var",
            "",
            0.0,
            100.0,
            900.0,
            3600.0,
            also={"scale_factor_range": (0.0, 0.0), "intensity_ranges": [(20, 250)]},
        ),
    ),
    Strip(
        ("rho_ranges",),
        "Correlation of the Gaussian image between x and y, at diameters of 4 px.",
        "first image",
        values(
            "rho_ranges",
            "",
            -0.8,
            0.0,
            0.5,
            0.9,
            also={"diameter_ranges": [(4.0, 4.0)], "seeding_density_range": (0.01, 0.01)},
        ),
    ),
    Strip(
        ("ellipticity",),
        "Difference between the diameters along x and y, at diameters of 1 to 6 px.",
        "first image",
        values(
            "ellipticity",
            "px",
            0.0,
            2.0,
            5.0,
            also={"diameter_ranges": [(1.0, 6.0)], "seeding_density_range": (0.01, 0.01)},
        ),
    ),
    Strip(
        ("noise_uniform",),
        "Noise from 0 up to this grey level.",
        "first image",
        values("noise_uniform", "", 0.0, 10.0, 40.0, 80.0),
    ),
    Strip(
        ("noise_gaussian_std", "noise_gaussian_mean"),
        "Standard deviation of the noise, with a mean of four standard deviations, so that nothing "
        "is clipped at 0.",
        "first image",
        {
            f"{std:g}": {"noise_gaussian_std": std, "noise_gaussian_mean": 4 * std}
            for std in (0.0, 4.0, 10.0, 25.0)
        },
    ),
    Strip(
        ("mask", "seeding_image", "body_mask", "background"),
        "Maps of pixels, each read from a file: `mask`, `seeding_image` (a jet), `body_mask` (a "
        "cylinder), `background` (a reflection).",
        "first image",
        {name: {name: name} for name in ("mask", "seeding_image", "body_mask", "background")},
    ),
    Strip(
        ("filter_sigma_range",),
        "Kinematic fields of one largest displacement; the smoothness grows with sigma.",
        "flow field",
        values("filter_sigma_range", "px", 3.0, 6.0, 12.0, 24.0),
    ),
    Strip(
        ("scale_factor_range",),
        "Largest displacement of a field; colours are saturated at 4 px.",
        "flow field",
        values("scale_factor_range", "px", 0.5, 1.0, 2.0, 4.0),
    ),
    Strip(
        ("out_of_plane_displacement", "sheet_profile", "sheet_thickness"),
        "Displacement through a top-hat light sheet of thickness 1, in still fluid: particles "
        "leave (red) and enter (cyan).",
        "both images",
        values(
            "out_of_plane_displacement",
            "",
            0.0,
            0.2,
            0.5,
            1.0,
            also={
                "sheet_profile": "top-hat",
                "sheet_thickness": 1.0,
                "scale_factor_range": (0.0, 0.0),
            },
        ),
    ),
    Strip(
        ("electrons_per_grey_level",),
        "Shot noise: the fewer electrons make a grey level, the stronger it is.",
        "first image",
        values("electrons_per_grey_level", "", 0.0, 4.0, 0.4, 0.05),
    ),
    Strip(
        ("gain",),
        "Factor from light to grey levels; the last image is saturated.",
        "first image",
        values("gain", "", 0.5, 1.0, 2.0, 4.0),
    ),
    Strip(
        ("background_gradient",),
        "Rise of the background light over the image, down and to the right.",
        "first image",
        {
            f"{y:g}, {x:g}": {"background_gradient": (y, x)}
            for y, x in ((0.0, 0.0), (60.0, 0.0), (0.0, 120.0), (60.0, -60.0))
        },
    ),
)


def lines(keys: Mapping[str, object]) -> Iterator[str]:
    """Yield the lines that show the strips of a table of keys."""
    for strip in STRIPS:
        if strip.keys[0] in keys:
            names = ", ".join(f"`{key}`" for key in strip.keys)
            yield f"\n{names}: {strip.text}\n"
            yield f"![{', '.join(strip.panels)}](images/{strip.path.name})"


NOISY: Changes = {
    "diameter_ranges": [(1.5, 2.5)],
    "intensity_ranges": [(80, 200)],
    "noise_gaussian_mean": 12.0,
    "noise_gaussian_std": 3.0,
}
"""The pair of the README."""

PAIR, BLINKING = FOLDER / "pair.png", FOLDER / "pair.gif"


# Drawing -----------------------------------------------------------------------------------------


def base() -> dict[str, Any]:
    """Configure one pair with particles of one size and without noise."""
    config: dict[str, Any] = YAML(typ="safe").load(ROOT / "examples" / "kinematic.yaml")
    return config | {
        "batch_size": 1,
        "flow_fields_per_batch": 1,
        "batches_per_flow_batch": 1,
        "image_shape": (SIZE, SIZE),
        "flow_field_size": (96.0, 96.0),
        "img_offset": (16.0, 16.0),
        **dict.fromkeys(("max_speed_x", "max_speed_y"), 4.0),
        **dict.fromkeys(("min_speed_x", "min_speed_y"), -4.0),
        "scale_factor_range": (4.0, 4.0),
        "filter_sigma_range": (8.0, 8.0),
        "seeding_density_range": (0.04, 0.04),
        "diameter_ranges": [(2.0, 2.0)],
        "intensity_ranges": [(180, 180)],
        "rho_ranges": [(0.0, 0.0)],
        **dict.fromkeys(("diameter_var", "intensity_var", "rho_var"), 0.0),
        **dict.fromkeys(("p_hide_img1", "p_hide_img2"), 0.0),
        **dict.fromkeys(("noise_uniform", "noise_gaussian_mean", "noise_gaussian_std"), 0.0),
    }


def write_maps(folder: Path) -> None:
    """Write the files that the strip of maps needs."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    maps = {
        "mask": (np.hypot(x, y) < 0.45).astype(np.int64),
        "seeding_image": np.exp(-((y / (0.1 + 0.15 * (x + 0.5))) ** 2)),
        "body_mask": (np.hypot(x, y) < 0.2).astype(np.int64),
        "background": 120 * np.exp(-(((x - y) / 0.1) ** 2)),
    }
    for name, image in maps.items():
        np.save(folder / f"{name}.npy", image)


def make_pair(changes: Changes, folder: Path) -> Pair:
    """Render the pair of a panel."""
    config = base() | {
        key: str(folder / f"{value}.npy") if key == value else value
        for key, value in changes.items()
    }
    with SynthPixDataset(config) as dataset:
        return pairs_of(dataset.batch_at(0))[0]


def draw_panel(pair: Pair, view: View) -> Image.Image:
    """Draw a pair with whole pixels; grey levels from 0 to 255."""
    levels = np.clip(np.rint(pair.images), 0, 255).astype(np.uint8)
    if view == "first image":
        content = levels[0]
    elif view == "both images":
        content = np.dstack([levels[0], levels[1], levels[1]])
    else:
        content = colour_flow_field(pair.flow_field, largest=4.0, valid=pair.valid)
    side = SIZE * ENLARGED
    return Image.fromarray(content).resize((side, side), Image.Resampling.NEAREST)


def draw_strip(strip: Strip, folder: Path) -> Image.Image:
    """Draw the panels of a strip side by side below their captions."""
    panels = [
        draw_panel(make_pair(changes, folder), strip.view) for changes in strip.panels.values()
    ]
    side = SIZE * ENLARGED
    size = (len(panels) * (side + GAP) - GAP, side + CAPTION)
    picture = Image.new(panels[0].mode, size, "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=13)
    for index, (panel, caption) in enumerate(zip(panels, strip.panels, strict=True)):
        left = index * (side + GAP)
        draw.text((left, 0), caption, fill="black", font=font)
        picture.paste(panel, (left, CAPTION))
    return picture


def draw_pair(pair: Pair) -> Figure:
    """Draw a pair, both images in one, and the label, for the README."""
    white, largest = white_level([pair]), largest_displacement([pair])
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    axes = figure.subplots(1, 5)
    for axis, image, title in zip(axes, pair.images, ("first image", "second image"), strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=white, interpolation="nearest")
        axis.set_title(title)
    draw_both(axes[2], pair, white=white)
    axes[2].set_title("first red, second cyan")
    draw_flow_field(axes[3], pair, largest=largest)
    axes[3].set_title("label: displacement")
    draw_wheel(axes[4], largest=largest, unit="px")
    for axis in axes[:4]:
        axis.set(xticks=[], yticks=[])
    return figure


def main() -> None:
    """Draw the strips of the keys given as arguments, or everything."""
    chosen = sys.argv[1:]
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        write_maps(Path(folder))
        for strip in STRIPS:
            if not chosen or strip.keys[0] in chosen:
                draw_strip(strip, Path(folder)).save(strip.path, optimize=True)
        if chosen:
            return
        pair = make_pair(NOISY, Path(folder))
    draw_pair(pair).savefig(PAIR, dpi=90, pil_kwargs={"optimize": True})
    save_blinking(pair, BLINKING)


if __name__ == "__main__":
    main()
