"""synthpix-torch bench: what it measures and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kinds import base, few
from ruamel.yaml import YAML

from synthpix_torch.cli import main
from synthpix_torch.cli.bench import describe_limit
from synthpix_torch.cli.stages import Stages
from synthpix_torch.config.reading import read_config


def test_stages_and_pairs_per_second_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in base(**few, loop=False).items()}
    YAML().dump(config, tmp_path / "small.yaml")
    arguments = ["bench", str(tmp_path / "small.yaml"), "--seconds", "0.1"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stages"].keys() == set(Stages._fields)
    assert min(found["stages"].values()) > 0
    assert found["pairs_per_second"] == pytest.approx(4 / found["seconds_per_batch"])
    assert found["seconds_to_first_batch"] > 0
    assert found["stages"][found["limit"]] == max(found["stages"].values())


@pytest.mark.parametrize(
    ("stages", "changes", "sentence"),
    [
        (
            Stages(0.006, 0.002, 0.001, 0.001),
            few,
            "The limit is to read or generate flow fields, 60% of all stages: raise "
            "batches_per_flow_batch (now 3) or num_threads (now 2), or use scheduler_class "
            "'kinematic-device'.",
        ),
        (
            Stages(0.001, 0.006, 0.002, 0.001),
            few | {"scheduler_class": "kinematic-device"},
            "60% of all stages: raise batches_per_flow_batch (now 3).",
        ),
        (Stages(0.0, 0.0, 0.9, 0.1), {}, "render images and labels, 90% of all stages"),
        (Stages(0.0, 0.0, 0.1, 0.9), {}, "raise batch_size (now 4)"),
    ],
)
def test_the_slowest_stage_is_named_with_the_keys_that_change_it(
    stages: Stages, changes: dict[str, object], sentence: str
) -> None:
    assert sentence in describe_limit(stages, read_config(base(**changes)))
