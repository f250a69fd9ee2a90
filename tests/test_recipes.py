"""A step holds the configuration of its datasets, and steps of released versions stay readable."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import synthpix
import torch
from kinds import base, few
from oracle import digest, sampler

from synthpix_torch import Checkpointer, CheckpointError, RandomState, SynthPixDataset
from synthpix_torch.checkpoint.load import read_recipe

GOLDEN = Path(__file__).parent / "golden"


def at(position: int, **options: Any) -> SynthPixDataset:
    dataset = SynthPixDataset(base(**few), **options)
    dataset.seek(position)
    return dataset


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Steps 1 and 2 of a training set and a validation set."""
    train, validation = at(5, epoch_length=9), at(2, layout="synthpix")
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(data=train, validation=validation)
        checkpoints.save(1)
        train.seek(6)
        checkpoints.save(2)
    return tmp_path


def test_a_dataset_is_built_again_from_a_step_and_continues(run: Path) -> None:
    with SynthPixDataset.from_checkpoint(run) as again:
        assert (again.position, len(again)) == (6, 9)
        wanted = [digest(batch) for batch in islice(at(6), 3)]
        assert [digest(batch) for batch in islice(again, 3)] == wanted
    assert SynthPixDataset.from_checkpoint(run, step=1).position == 5
    assert SynthPixDataset.from_checkpoint(run, name="validation").position == 2


def test_a_recipe_is_the_one_that_the_dataset_had(run: Path) -> None:
    for name, options in (("data", {"epoch_length": 9}), ("validation", {"layout": "synthpix"})):
        recipe, state = read_recipe(run, 1, name)
        assert recipe == json.loads(json.dumps(SynthPixDataset(base(**few), **options).recipe))
        assert state["sampler"] == {"position": 5 if name == "data" else 2}


def test_a_corrupt_step_gives_no_recipe(run: Path) -> None:
    path = run / "2" / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.warns(UserWarning, match="Step 2 .* skipped: _CHECKPOINT_METADATA was changed"):
        assert read_recipe(run)[1]["sampler"] == {"position": 5}
    with pytest.raises(CheckpointError, match="_CHECKPOINT_METADATA was changed"):
        read_recipe(run, 2)


def test_a_dataset_or_a_step_that_is_not_there_is_an_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2 datasets \(data, validation\), none .* named test"):
        read_recipe(run, name="test")
    with pytest.raises(ValueError, match=r"no step 3 .* there are: 1, 2"):
        read_recipe(run, 3)
    with pytest.raises(FileNotFoundError, match=r"no complete step in .*: choose another folder"):
        read_recipe(tmp_path / "none")


def test_a_checkpoint_of_synthpix_holds_no_configuration(tmp_path: Path) -> None:
    synthpix.save_checkpoint(tmp_path, sampler(base(**few)), 1)
    with pytest.raises(ValueError, match=r"by synthpix, .*SynthPixDataset\(config, load_from="):
        SynthPixDataset.from_checkpoint(tmp_path)


# Released versions -------------------------------------------------------------------------------


@pytest.fixture(params=sorted(path.parent.name for path in GOLDEN.glob("*/checkpoints")))
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what tests/golden/write.py wrote with a released version."""
    return Path(shutil.copytree(GOLDEN / request.param / "checkpoints", tmp_path / "run"))


@pytest.mark.filterwarnings("ignore:The state was saved with other versions")
def test_steps_of_released_versions_are_restored(golden: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    dataset = SynthPixDataset(base(**few), renderer="synthpix")
    with Checkpointer(golden) as checkpoints:
        checkpoints.register(data=dataset, model=model, optimizer=optimizer, random=RandomState())
        for step in (1, 2, None):
            torch.rand(1)
            assert checkpoints.restore(step) == (step or 2)
            assert dataset.position == 2 + (step or 2)
            assert torch.get_rng_state().equal(_saved(golden, "random")["ranks"][0]["torch"])
            weights = _saved(golden, "model")
            assert all(weights[name].equal(value) for name, value in model.state_dict().items())
            moments = _saved(golden, "optimizer")["state"][0]["exp_avg"]
            assert optimizer.state_dict()["state"][0]["exp_avg"].equal(moments)
        checkpoints.save(3)
    assert SynthPixDataset(base(**few), renderer="synthpix", load_from=golden).position == 4


def _saved(folder: Path, name: str) -> Any:
    return torch.load(folder / "2" / name / "state.pt", weights_only=True)


def test_steps_of_0_1_0_say_how_to_load_them_without_a_recipe(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN / "0.1.0" / "checkpoints", tmp_path / "run")
    words = r"by synthpix_torch 0\.1\.0, .*build .* SynthPixDataset\(config, load_from="
    with pytest.raises(ValueError, match=words):
        SynthPixDataset.from_checkpoint(folder)
