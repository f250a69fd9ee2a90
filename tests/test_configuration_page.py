"""The recipes of docs/configuration.md give the labels that they say, on data of their kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from synthpix_torch import SynthPixDataset

PAGE = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text()


def recipe(title: str) -> dict[str, Any]:
    """The configuration of the first snippet after a heading."""
    after = PAGE.split(f"# {title}\n", 1)[1]
    snippet = re.findall(r"```python\n(.*?)```", after, re.DOTALL)[0]
    found: dict[str, Any] = {}
    exec(snippet, found)
    return dict(found["config"])


def uniform(folder: str, shape: tuple[int, int], velocity: tuple[float, float]) -> None:
    Path(folder).mkdir()
    for number in range(4):
        field = np.broadcast_to(np.array(velocity, np.float32), (*shape, 2))
        np.save(Path(folder) / f"flow_{number}.npy", field)


def recorded() -> None:
    Path("recorded").mkdir()
    for number in range(4):
        pair = np.random.default_rng(number).integers(0, 256, (2, 96, 128), np.uint8)
        flow = np.full((96, 128, 2), 1.5, np.float32)
        scipy.io.savemat(f"recorded/{number}.mat", {"V": flow, "I0": pair[0], "I1": pair[1]})


RECIPES: dict[str, tuple[Callable[[], None], tuple[float, float]]] = {
    # 2 m/s to the right and 1 m/s upwards.
    "CFD in SI units": (lambda: uniform("cfd", (60, 60), (2.0, -1.0)), (5.0, -2.5)),
    "Millimetres, and metres per second": (
        lambda: uniform("cfd", (60, 60), (2.0, -1.0)),
        (2.0, -1.0),
    ),
    "A channel flow that only goes to the right": (
        lambda: uniform("channel", (128, 280), (12.0, 0.0)),
        (12.0, 0.0),
    ),
    "Real images": (recorded, (1.5, 1.5)),
}


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_gives_the_labels_that_it_says_and_no_warning(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write, expected = RECIPES[title]
    write()
    config = recipe(title)
    with SynthPixDataset(config) as dataset:
        stream = dataset.stream
        reader = stream.flows.read(lambda index: 0 if index == 0 else None)
        labels = np.asarray(stream.renderer.load(next(reader)).labels)
        reader.close()
    if config.get("include_images"):
        # Laid out together with the images.
        labels = np.moveaxis(labels, 3, 1)
    assert labels.shape[2:] == tuple(config["image_shape"])
    assert labels[:, 0] == pytest.approx(expected[0], rel=1e-5)
    assert labels[:, 1] == pytest.approx(expected[1], rel=1e-5)


@pytest.mark.parametrize("title", ["Configuration", "A lab camera"])
def test_a_recipe_of_generated_fields_is_accepted_without_a_warning(title: str) -> None:
    SynthPixDataset(recipe(title)).close()


def test_every_recipe_is_tried() -> None:
    titles = re.findall(r"^### (.*)$", PAGE.split("## Recipes")[1].split("## All")[0], re.MULTILINE)
    assert set(titles) == {*RECIPES, "A lab camera"}
