"""Check that the image and its margin lie within the flow field."""

from __future__ import annotations

from synthpix_torch.config.config import Config


def check_geometry(config: Config) -> None:
    """Raise if particles could enter the image from outside the flow field.

    The arithmetic is that of synthpix's sampler, in its order of operations, so that both refuse
    the same configurations.

    Raises:
        ValueError: The message gives the sum that does not fit, in length units.
    """
    speeds = {
        "y": (config.min_speed_y, config.max_speed_y),
        "x": (config.min_speed_x, config.max_speed_x),
    }
    for axis, (name, (slowest, fastest)) in enumerate(speeds.items()):
        if fastest < slowest:
            raise ValueError(
                f"max_speed_{name}={fastest} must not be less than min_speed_{name}={slowest}."
            )
        fastest, slowest = max(0.0, fastest), min(0.0, slowest)
        offset, dt = config.img_offset[axis], config.dt
        before = offset - fastest * dt
        if before < 0:
            raise ValueError(
                f"The image lies outside the flow field: img_offset along {name} is {offset}, but "
                f"must be at least max_speed_{name} * dt = {fastest * dt}."
            )
        pixels, size = config.image_shape[axis], config.flow_field_size[axis]
        length = pixels / config.resolution
        needed = length + fastest * dt - slowest * dt + before
        if needed > size:
            raise ValueError(
                f"The image lies outside the flow field: flow_field_size along {name} is {size}, "
                f"but must be at least img_offset {offset} + image {length} ({pixels} px at "
                f"resolution {config.resolution}) + margin {-slowest * dt} (-min_speed_{name} * "
                f"dt) = {needed}."
            )
        if int(pixels * config.velocities_per_pixel) < 1:
            raise ValueError(
                f"velocities_per_pixel={config.velocities_per_pixel} leaves no label along "
                f"{name}: raise it."
            )
