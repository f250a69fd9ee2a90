"""Scenes of the judges hold one particle, or only noise, on purpose."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "physics" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore::synthpix_torch.PhysicsWarning"))
