"""Displacements of analytic flows in closed form.

Positions (x, y) are in pixels from the centre of the flow, x to the right and y down, displacements
(u, v) in pixels between the images of a pair. With y down, a positive rotation turns clockwise in
the image, and the vorticity is dv/dx - du/dy. All flows are free of divergence but for the noise of
"rotation-noise".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

Range = tuple[float, float]

_ALPHA: Final = 1.2564312086261697
"""Solution a of exp(-a) (1 + 2 a) = 1: the Lamb-Oseen vortex is fastest at r^2 = a * 4 nu t."""

_LEAST: Final = 1e-12
"""Stands for 0 in quotients that have a limit there."""


class Parameters(NamedTuple):
    """Parameters of a flow: their values, or their ranges.

    Attributes:
        displacement: Pixels; negative for the opposite direction.
        gradient: Pixels per pixel; negative for the opposite direction.
        angle: Radians from the direction to the right, turning downwards.
        core_radius: Radius of the fastest circle of a vortex in pixels.
        wavelength: Pixels.
        centre_y: Row of the centre of the flow in pixels of the image.
        centre_x: Column of the centre.
    """

    displacement: Any
    gradient: Any
    angle: Any
    core_radius: Any
    wavelength: Any
    centre_y: Any
    centre_x: Any


class Flow(NamedTuple):
    """A flow in closed form.

    Attributes:
        displacements: Return (u, v) for parameters, positions x and y that broadcast, and the
            module (NumPy or jax.numpy) that computes.
        bounds: Return the bounds of u and v for ranges of the parameters, of x and of y.
        noise: Whether a kinematic field is added.
    """

    displacements: Callable[[Parameters, Any, Any, Any], tuple[Any, Any]]
    bounds: Callable[[Parameters, Range, Range], tuple[Range, Range]]
    noise: bool = False


def _uniform(p: Parameters, x: Any, y: Any, xp: Any) -> tuple[Any, Any]:
    """Displace all particles alike: (u, v) = d (cos a, sin a)."""
    return p.displacement * xp.cos(p.angle), p.displacement * xp.sin(p.angle)


def _uniform_bounds(p: Parameters, x: Range, y: Range) -> tuple[Range, Range]:
    return _product(p.displacement, _cos(p.angle)), _product(p.displacement, _sin(p.angle))


def _shear(p: Parameters, x: Any, y: Any, xp: Any) -> tuple[Any, Any]:
    """Shear along the angle a: u = G y for a = 0.

    G n (cos a, sin a) at the distance n = y cos a - x sin a from the axis. One of the linear flows
    of Batchelor, An Introduction to Fluid Dynamics (1967), section 2.3. Vorticity -G.
    """
    cosine, sine = xp.cos(p.angle), xp.sin(p.angle)
    along = p.gradient * (y * cosine - x * sine)
    return along * cosine, along * sine


def _shear_bounds(p: Parameters, x: Range, y: Range) -> tuple[Range, Range]:
    cosine, sine = _cos(p.angle), _sin(p.angle)
    across = _sum(_product(y, cosine), _product((-x[1], -x[0]), sine))
    along = _product(p.gradient, across)
    return _product(along, cosine), _product(along, sine)


def _rotation(p: Parameters, x: Any, y: Any, xp: Any) -> tuple[Any, Any]:
    """Rotate as a solid body: (u, v) = G (-y, x), one Euler step (Batchelor 1967). Vorticity 2 G.

    G is the angular velocity times the time between the images.
    """
    return -p.gradient * y, p.gradient * x


def _rotation_bounds(p: Parameters, x: Range, y: Range) -> tuple[Range, Range]:
    return _product(p.gradient, (-y[1], -y[0])), _product(p.gradient, x)


def _stagnation(p: Parameters, x: Any, y: Any, xp: Any) -> tuple[Any, Any]:
    """Strain without rotation: (u, v) = G (x, -y) for a = 0, which leaves along the angle a.

    Plane stagnation-point flow, Batchelor (1967), section 2.3. Vorticity 0.
    """
    cosine, sine = xp.cos(2 * p.angle), xp.sin(2 * p.angle)
    return p.gradient * (x * cosine + y * sine), p.gradient * (x * sine - y * cosine)


def _stagnation_bounds(p: Parameters, x: Range, y: Range) -> tuple[Range, Range]:
    twice = 2 * p.angle[0], 2 * p.angle[1]
    cosine, sine = _cos(twice), _sin(twice)
    u = _sum(_product(x, cosine), _product(y, sine))
    v = _sum(_product(x, sine), _product((-y[1], -y[0]), cosine))
    return _product(p.gradient, u), _product(p.gradient, v)


def _rankine(p: Parameters, x: Any, y: Any, xp: Any) -> tuple[Any, Any]:
    """Rankine's vortex: d r / R tangentially within the core radius R, d R / r outside.

    Saffman, Vortex Dynamics (1992). Vorticity 2 d / R within the core, 0 outside.
    """
    turn = p.displacement / p.core_radius / xp.maximum(1.0, _squared_radius(p, x, y))
    return -turn * y, turn * x


def _lamb_oseen(p: Parameters, x: Any, y: Any, xp: Any) -> tuple[Any, Any]:
    """Lamb's and Oseen's vortex: d (1 + 1 / (2 a)) (R / r) (1 - exp(-a r^2 / R^2)) tangentially.

    It is fastest, with d, at the core radius R: a = 1.25643. Devenport, Rife, Liapis and Follin, J.
    Fluid Mech. 312 (1996). Vorticity (d / R) (1 + 2 a) exp(-a r^2 / R^2).
    """
    # (1 - exp(-q)) / q is 1 in the centre.
    q = xp.maximum(_ALPHA * _squared_radius(p, x, y), _LEAST)
    turn = p.displacement / p.core_radius * (_ALPHA + 0.5) * (-xp.expm1(-q) / q)
    return -turn * y, turn * x


def _squared_radius(p: Parameters, x: Any, y: Any) -> Any:
    """Return the squared distance from the centre in core radii."""
    return (x / p.core_radius) ** 2 + (y / p.core_radius) ** 2


def _taylor_green(p: Parameters, x: Any, y: Any, xp: Any) -> tuple[Any, Any]:
    """Array of vortices of Taylor and Green: d (-cos kx sin ky, sin kx cos ky), k = 2 pi / L.

    One vortex lies in the centre; its neighbours turn the other way. Taylor and Green, Proc. R.
    Soc. A 158 (1937), in the plane. Vorticity 2 k d cos kx cos ky.
    """
    number = 2 * math.pi / p.wavelength
    x, y = number * x, number * y
    return -p.displacement * xp.cos(x) * xp.sin(y), p.displacement * xp.sin(x) * xp.cos(y)


def _largest_bounds(p: Parameters, x: Range, y: Range) -> tuple[Range, Range]:
    """Return the bounds of flows whose largest displacement is d, in any direction."""
    largest = max(map(abs, p.displacement))
    return (-largest, largest), (-largest, largest)


FLOWS: Final[dict[str, Flow]] = {
    "uniform": Flow(_uniform, _uniform_bounds),
    "shear": Flow(_shear, _shear_bounds),
    "rotation": Flow(_rotation, _rotation_bounds),
    "rotation-noise": Flow(_rotation, _rotation_bounds, noise=True),
    "stagnation": Flow(_stagnation, _stagnation_bounds),
    "rankine": Flow(_rankine, _largest_bounds),
    "lamb-oseen": Flow(_lamb_oseen, _largest_bounds),
    "taylor-green": Flow(_taylor_green, _largest_bounds),
}
"""Analytic flows by the name that a configuration gives as `scheduler_class`."""


def _product(a: Range, b: Range) -> Range:
    products = [one * other for one in a for other in b]
    return min(products), max(products)


def _sum(a: Range, b: Range) -> Range:
    return a[0] + b[0], a[1] + b[1]


def _cos(angles: Range) -> Range:
    low, high = angles
    if high - low >= 2 * math.pi:
        return -1.0, 1.0
    turns = range(math.ceil(low / math.pi), math.floor(high / math.pi) + 1)
    values = [math.cos(low), math.cos(high), *(math.cos(math.pi * turn) for turn in turns)]
    return min(values), max(values)


def _sin(angles: Range) -> Range:
    return _cos((angles[0] - math.pi / 2, angles[1] - math.pi / 2))
