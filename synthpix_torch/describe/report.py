"""The description of a dataset, for people and as numbers."""

from __future__ import annotations

from dataclasses import dataclass

Pair = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The content of a dataset, measured on some batches; `str()` is readable.

    Shapes, areas and spacings are (y, x). Grey levels are of 255, whatever the range of the images.

    Attributes:
        source: Where flow fields come from: a `scheduler_class` or the type of a source.
        recorded: Whether images are recorded instead of rendered. Then area, resolution, spacing,
            density, particles, lost pairs and the configured diameter are None.
        image_shape: Height and width of images in pixels.
        image_area: Height and width in length units.
        resolution: Pixels per length unit.
        batch_size: Image pairs in a batch.
        records: Number of records.
        records_per_flow_batch: Records that are used of each `batch_size`; the rest is not read.
        used_in_a_pass: Share of the records that one pass over them uses.
        used_ever: Share of the records that the stream ever uses.
        grid_shape: Rows and columns of nodes of a flow field.
        grid_spacing: Distance of nodes in pixels.
        flow_fields: Flow fields that were measured.
        displacement_median: Median of the displacement's magnitude in pixels, over all labels.
        displacement_99: 99th percentile of the same.
        displacement_largest: Largest of the same.
        displacement_x: Least and largest component to the right in pixels.
        displacement_y: Least and largest component down in pixels.
        folded_fields: Share of the flow fields that fold somewhere (`folded_share`).
        folded_area: Mean share of the area that is folded.
        density: Mean number of particles per pixel that an image shows.
        window: Side of an interrogation window in pixels.
        particles_per_window: Particles that an image shows in it.
        lost_pairs: Share of the particles of an image that the other does not show.
        diameter: Smallest and largest e^-2 diameter in pixels by the configuration.
        diameter_measured: The same from the autocorrelation of the images; None if there is nothing
            to measure.
        mean_level: Mean grey level.
        brightest_level: Largest grey level.
        saturated: Share of pixels at 255 after rounding, or above.
        dark: Share of pixels at 0 after rounding.
        batch_bytes: Memory of the tensors of a batch.
        batch_seconds: Median time to read and render one batch, without prefetching.
        device: Where batches are made.
        suspicious: What is possible but odd, a sentence with a number each.
    """

    source: str
    recorded: bool
    image_shape: tuple[int, int]
    image_area: Pair | None = None
    resolution: float | None = None
    batch_size: int
    records: int
    records_per_flow_batch: int
    used_in_a_pass: float
    used_ever: float
    grid_shape: tuple[int, int]
    grid_spacing: Pair | None = None
    flow_fields: int
    displacement_median: float
    displacement_99: float
    displacement_largest: float
    displacement_x: Pair
    displacement_y: Pair
    folded_fields: float
    folded_area: float
    density: float | None = None
    window: int
    particles_per_window: float | None = None
    lost_pairs: float | None = None
    diameter: Pair | None = None
    diameter_measured: float | None
    mean_level: float
    brightest_level: float
    saturated: float
    dark: float
    batch_bytes: int
    batch_seconds: float
    device: str
    suspicious: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Write a table of at most 100 columns, and the suspicious findings."""
        kind = "recorded" if self.recorded else "rendered"
        title = f"{self.batch_size} {kind} pairs a batch from {self.source}, on {self.device}"
        rows = [
            ("images", self._images()),
            ("flow fields", self._grid()),
            ("displacement", self._displacement()),
            ("", self._components()),
            ("folding", self._folding()),
            *self._particles(),
            ("diameter", self._diameter()),
            ("grey levels", self._levels()),
            ("records", self._records()),
            ("a batch", self._batch()),
        ]
        table = "\n".join(f"  {name:12}  {text}" for name, text in rows)
        return f"{title}\n\n{table}\n\n{self._findings()}"

    def _images(self) -> str:
        pixels = f"{_shape(self.image_shape)} px (height x width)"
        if self.image_area is None:
            return pixels
        return (
            f"{pixels} = {_shape(self.image_area)} length units at {self.resolution:g} px per unit"
        )

    def _grid(self) -> str:
        text = f"{_shape(self.grid_shape)} nodes"
        if self.grid_spacing is None or self.resolution is None:
            return text
        text += f", {_shape(self.grid_spacing)} px apart"
        if self.resolution == 1:
            return text
        spacing = (self.grid_spacing[0] / self.resolution, self.grid_spacing[1] / self.resolution)
        return f"{text} ({_shape(spacing)} length units)"

    def _displacement(self) -> str:
        return (
            f"median {_number(self.displacement_median)} px, 99 % below "
            f"{_number(self.displacement_99)} px, largest {_number(self.displacement_largest)} px "
            f"(in {self.flow_fields} fields)"
        )

    def _components(self) -> str:
        return (
            f"{_from_to(self.displacement_x)} px to the right, "
            f"{_from_to(self.displacement_y)} px down"
        )

    def _folding(self) -> str:
        if not self.folded_fields:
            return "none"
        return f"in {_percent(self.folded_fields)} of the fields, {_percent(self.folded_area)} area"

    def _particles(self) -> list[tuple[str, str]]:
        if self.density is None or self.lost_pairs is None:
            return []
        return [
            (
                "particles",
                f"{_number(self.density)} per px, {_number(self.particles_per_window)} in a window "
                f"of {self.window} x {self.window} px",
            ),
            ("lost pairs", f"{_percent(self.lost_pairs)} of the particles of an image"),
        ]

    def _diameter(self) -> str:
        found = self.diameter_measured
        measured = "not measurable" if found is None else f"measured {_number(found)} px"
        if self.diameter is None:
            return f"e^-2 {measured}"
        low, high = self.diameter
        configured = _number(low) if low == high else f"{_number(low)} to {_number(high)}"
        return f"{configured} px (e^-2), {measured}"

    def _levels(self) -> str:
        return (
            f"mean {_number(self.mean_level)}, largest {_number(self.brightest_level)}; "
            f"{_percent(self.saturated)} saturated, {_percent(self.dark)} dark"
        )

    def _records(self) -> str:
        text = f"{self.records}"
        if self.records_per_flow_batch < self.batch_size:
            text += (
                f"; {self.records_per_flow_batch} of each {self.batch_size} used, "
                f"{_percent(self.used_in_a_pass)} in a pass, {_percent(self.used_ever)} ever"
            )
        return text

    def _batch(self) -> str:
        return f"{_bytes(self.batch_bytes)}, {_number(self.batch_seconds)} s without prefetching"

    def _findings(self) -> str:
        if not self.suspicious:
            return "Nothing is suspicious."
        return "\n".join(["Suspicious:", *(f"  - {sentence}" for sentence in self.suspicious)])


def _number(value: float | None) -> str:
    """Write three digits, and no exponent for large numbers."""
    value = value or 0.0
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _shape(pair: Pair) -> str:
    return f"{_number(pair[0])} x {_number(pair[1])}"


def _from_to(ends: Pair) -> str:
    return f"{_number(ends[0])} to {_number(ends[1])}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.3g} %"


def _bytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
