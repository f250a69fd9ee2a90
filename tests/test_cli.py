"""synthpix-torch inspect: what a folder of checkpoints holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import synthpix
from kinds import base, few
from oracle import sampler

from synthpix_torch import Checkpointer, RandomState, SynthPixDataset
from synthpix_torch.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Steps 1 (of synthpix), 2, 3 (damaged) and 4 (of nobody knows whom)."""
    synthpix.save_checkpoint(tmp_path, sampler(base(**few)), 1)
    dataset = SynthPixDataset(base(**few))
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(data=dataset, rng=RandomState())
        for step in (2, 3):
            dataset.seek(7 * step)
            checkpoints.save(step, metrics={"epe": 0.25})
    os.utime(tmp_path / "2", (0, 0))
    (tmp_path / "3" / "rng" / "state.pt").write_bytes(b"")
    (tmp_path / "4").mkdir()
    return tmp_path


def test_a_person_reads_steps_age_size_position_fingerprint_and_damage(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(folder)]) == 1
    header, first, second, third, fourth = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "step", "age", "size", "position", "fingerprint", "metrics", "objects"
    ]  # fmt: skip
    assert "by synthpix" in first
    assert "data: batch 14, epoch 1.33" in second
    assert " d " in second
    assert "KiB" in second
    assert "data, rng" in second
    assert "epe 0.25" in second
    assert third.endswith("CORRUPT: rng/state.pt was changed")
    assert "by another program" in fourth


def test_a_program_reads_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "4").rmdir()
    main(["inspect", str(folder), "--json"])
    first, second, third = json.loads(capsys.readouterr().out)
    assert (first["step"], first["written_by"], first["corrupt"]) == (1, "synthpix", None)
    assert second["objects"] == {"data": "dataset", "rng": "random"}
    about = second["datasets"]["data"]
    assert (about["position"], about["epochs"]) == (14, 1.3333)
    assert second["metrics"] == {"epe": 0.25}
    assert about["fingerprint"] in third["datasets"]["data"].values()
    assert third["corrupt"] == "rng/state.pt was changed"
    assert second["size"] == sum(
        path.stat().st_size for path in (folder / "2").rglob("*") if path.is_file()
    )


def test_a_folder_without_damage_ends_with_0_and_one_that_is_missing_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(data=SynthPixDataset(base()))
        checkpoints.save(1)
    assert main(["inspect", str(tmp_path)]) == 0
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(tmp_path / "none")])
    assert ended.value.code == 2
    assert "none is not a folder" in capsys.readouterr().err


def test_the_module_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "synthpix_torch", "inspect", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "step", "age", "size", "position", "fingerprint", "metrics", "objects"
    ]  # fmt: skip
