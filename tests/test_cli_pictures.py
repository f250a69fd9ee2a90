"""synthpix-torch preview and replay: what the written files show."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import base, few
from matplotlib.quiver import Quiver
from PIL import Image
from ruamel.yaml import YAML

from synthpix_torch import Batch, Checkpointer, PhysicsWarning, SynthPixBatch, SynthPixDataset
from synthpix_torch.cli import main
from synthpix_torch.pictures.colours import colour_flow_field, colour_wheel
from synthpix_torch.pictures.figure import draw_pairs
from synthpix_torch.pictures.views import Pair, pairs_of

CONFIG = base(**few, velocities_per_pixel=0.5)
KINDS_OF_FILES = ("a.png", "a.gif", "a.apng", "a.npz")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    plain = {
        key: list(value) if isinstance(value, tuple) else value for key, value in CONFIG.items()
    }
    YAML().dump(plain, path)
    return path


@pytest.fixture(scope="module")
def previewed(config: Path) -> Path:
    """The folder with a file of each kind, of batch 5."""
    files = [argument for name in KINDS_OF_FILES for argument in ("-o", str(config.parent / name))]
    assert main(["preview", str(config), "--batch", "5", *files]) == 0
    return config.parent


@pytest.fixture(scope="module")
def batch_5() -> dict[str, np.ndarray]:
    with SynthPixDataset(CONFIG) as dataset:
        batch = dataset.batch_at(5)
        return {"images": batch.images.numpy(), "flow_fields": batch.flow_fields.numpy()}


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The sentence with which a command refuses its arguments."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    return lines[-1]


def test_preview_writes_the_arrays_of_the_chosen_batch(
    previewed: Path, batch_5: dict[str, np.ndarray]
) -> None:
    with np.load(previewed / "a.npz") as arrays:
        assert arrays["number"] == 5
        for name, expected in batch_5.items():
            np.testing.assert_array_equal(arrays[name], expected)
        assert arrays["params.seeding_densities"].shape == (4,)


@pytest.mark.parametrize("name", ["a.gif", "a.apng"])
def test_a_blinking_pair_shows_both_images_enlarged(
    previewed: Path, batch_5: dict[str, np.ndarray], name: str
) -> None:
    pair = batch_5["images"][0]
    levels = np.clip(pair * (255 / np.percentile(pair, 99.9)), 0, 255)
    with Image.open(previewed / name) as picture:
        assert getattr(picture, "n_frames", 1) == 2
        for frame, expected in enumerate(levels):
            picture.seek(frame)
            shown = np.asarray(picture.convert("L"), np.float64)[10::20, 10::20]
            np.testing.assert_allclose(shown, expected, atol=1)


def test_preview_writes_a_figure(previewed: Path) -> None:
    with Image.open(previewed / "a.png") as picture:
        assert min(picture.size) > 500


def test_arrows_point_with_the_flow_field_where_its_labels_lie() -> None:
    y, x = np.mgrid[:8, :12]
    pair = Pair(np.ones((2, 16, 24)), np.stack([x, -y]).astype(float), np.ones((8, 12), bool))
    figure = draw_pairs([pair], shown=1, title="", unit="px")
    axis = figure.axes[3]
    (arrows,) = axis.collections
    assert isinstance(arrows, Quiver)
    np.testing.assert_array_equal(
        np.asarray(arrows.get_offsets()), np.c_[2 * x.ravel(), 2 * y.ravel()]
    )
    np.testing.assert_array_equal(arrows.U, x.ravel())
    np.testing.assert_array_equal(arrows.V, -y.ravel())
    # With this axis and angles="xy" positive V points down.
    assert axis.get_ylim() == (15.5, -0.5)
    assert arrows.angles == "xy"
    # A label is the centre of its colour.
    assert tuple(axis.images[0].get_extent()) == (-1, 23, 15, -1)


def test_a_still_pair_with_a_body_can_be_drawn() -> None:
    valid = np.tri(16, dtype=bool)
    figure = draw_pairs(
        [Pair(np.zeros((2, 16, 16)), np.zeros((2, 16, 16)), valid)], shown=3, title="", unit="px"
    )
    figure.canvas.draw()
    colours = np.asarray(figure.axes[3].images[0].get_array())
    assert (colours[valid] == 255).all()
    assert (colours[~valid] == 127).all()


def test_colours_are_those_of_middlebury() -> None:
    directions = {"right": (1, 0), "down": (0, 1), "left": (-1, 0), "up": (0, -1)}
    flow_field = np.array(list(directions.values()), float).T[:, None]
    right, down, left, up = colour_flow_field(flow_field, largest=1.0)[0].tolist()
    # From the positions 0, 13.5, 27 and 40.5 of 55 on the wheel.
    assert right == [255, 0, 0]
    assert down == [255, 229, 0]
    assert left == [0, 208, 255]
    assert up == [88, 0, 255]
    half, double = (
        colour_flow_field(flow_field, largest=largest)[0, 0].tolist() for largest in (2.0, 0.5)
    )
    assert half == [255, 127, 127]
    assert double == [191, 0, 0]
    assert colour_wheel(3)[1, 1].tolist() == [255, 255, 255, 255]
    assert colour_wheel(3)[0, 0, 3] == 0


def test_empty_slots_are_not_drawn_and_both_layouts_look_alike() -> None:
    rng = np.random.default_rng(0)
    images, flow_fields = torch.tensor(rng.random((2, 4, 2, 6, 5)))
    common: dict[str, Any] = dict.fromkeys(Batch._fields)
    common |= {"mask": torch.tensor([True, False, True, False]), "number": 7}
    ours = Batch(**common | {"images": images, "flow_fields": flow_fields})
    common |= {"images1": images[:, 0], "images2": images[:, 1]}
    common |= {"flow_fields": flow_fields.movedim(1, -1)}
    del common["images"]
    theirs: Any = SynthPixBatch(**common)
    assert len(pairs_of(ours)) == 2
    for pair, same in zip(pairs_of(ours), pairs_of(theirs), strict=True):
        np.testing.assert_array_equal(pair.images, same.images)
        np.testing.assert_array_equal(pair.flow_field, same.flow_field)
    with pytest.raises(ValueError, match="All slots of batch 7 are empty"):
        pairs_of(ours._replace(mask=torch.zeros(4, dtype=torch.bool)))


# replay ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Step 0 before the first batch, step 3 after batch 5 was delivered."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with SynthPixDataset(CONFIG) as dataset, Checkpointer(folder) as steps:
        steps.register(data=dataset)
        steps.save(0)
        dataset.seek(6)
        steps.save(3)
    return folder


def test_replay_makes_the_batch_that_a_step_was_trained_on(
    checkpoints: Path, tmp_path: Path, batch_5: dict[str, np.ndarray]
) -> None:
    assert main(["replay", str(checkpoints), "3", "-o", str(tmp_path / "a.npz")]) == 0
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["number"] == 5
        np.testing.assert_array_equal(arrays["images"], batch_5["images"])


def test_replay_says_that_there_was_no_batch_before_the_first(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a.npz"
    message = error_of(capsys, "replay", checkpoints, 0, "-o", output)
    assert "Step 0 continues with batch 0" in message
    assert not output.exists()
    assert main(["replay", str(checkpoints), "0", "--back", "0", "-o", str(output)]) == 0


def test_replay_names_a_missing_step_and_a_missing_folder(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a.npz"
    message = error_of(capsys, "replay", checkpoints, 7, "-o", output)
    assert "There is no step 7" in message
    assert "there are: 0, 3" in message
    message = error_of(capsys, "replay", tmp_path / "none", 7, "-o", output)
    assert "none is not a folder of checkpoints" in message


# Errors ------------------------------------------------------------------------------------------


def test_one_sentence_names_what_is_wrong(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a.png"
    cases = {
        ("preview", config, "-o", tmp_path / "a.bmp"): "must end with one of .png, .pdf, .svg",
        ("preview", config, "-o", tmp_path / "no" / "a.png"): "no does not exist: make it first",
        ("preview", config, "-o", output, "--pairs", 0): "--pairs must be",
        ("preview", config, "-o", output, "--batch", -1): "The number of a batch must be",
        ("preview", tmp_path / "no.yaml", "-o", output): "no.yaml' does not exist",
        ("preview", config, "-o", output, "--device", "tpu"): "must be 'cpu' or 'cuda'",
        ("verify", config, "--batches", 2): "--batches must be at least 8, not 2",
        ("bench", config, "--seconds", 0): "--seconds must be a positive number",
    }
    for arguments, sentence in cases.items():
        message = error_of(capsys, *arguments)
        assert sentence in message
        assert message.startswith(f"synthpix-torch {arguments[0]}: ")


@pytest.mark.parametrize(("package", "suffix"), [("matplotlib", "png"), ("PIL", "gif")])
def test_a_missing_extra_is_named_before_any_batch_is_made(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    package: str,
    suffix: str,
) -> None:
    for module in ("figure", "blink"):
        monkeypatch.delitem(sys.modules, f"synthpix_torch.pictures.{module}", raising=False)
    for module in (package, f"{package}.figure", f"{package}.Image"):
        monkeypatch.setitem(sys.modules, module, None)
    message = error_of(capsys, "preview", "no.yaml", "-o", tmp_path / f"a.{suffix}")
    assert "pip install 'synthpix_torch[pictures]'" in message


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("synthpix_torch.cli.verify.open_dataset", interrupt)
    assert main(["verify", str(config)]) == 130


class Ignoring:
    """Python ignores what is raised when an object is deleted."""

    def __del__(self) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_is_not_lost_where_python_ignores_it(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    def wait(*_: object) -> None:
        Ignoring()
        time.sleep(5)
        raise AssertionError("It was lost.")

    monkeypatch.setattr("synthpix_torch.cli.verify.open_dataset", wait)
    assert main(["verify", str(config)]) == 130


def test_warnings_are_lines_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(options: argparse.Namespace) -> int:
        warnings.simplefilter("default")
        warnings.warn("this is odd", PhysicsWarning, stacklevel=2)
        return 0

    monkeypatch.setattr("synthpix_torch.cli.preview.run", run)
    assert main(["preview", "no.yaml", "-o", str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr().err == "warning: this is odd\n"
