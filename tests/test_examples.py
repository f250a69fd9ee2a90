"""A killed and resumed training has the batches, losses and weights of an uninterrupted one."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import EXAMPLES, Line, run, run_and_kill

STEPS = 400
TRAINERS = {
    "plain": "torch",
    "checkpointer": "torch",
    "stateful_dataloader": "torchdata",
    "fabric": "lightning",
    "lightning": "lightning",
    "accelerate": "accelerate",
    "dcp": "torch",
    "transformers": "transformers",
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    """Run the plain loop without interruption in its own process."""
    return run("plain", tmp_path_factory.mktemp("uninterrupted"), steps=STEPS, save_every=1000)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_killed_and_resumed_training_equals_the_uninterrupted_plain_loop(
    trainer: str, uninterrupted: list[Line], tmp_path: Path
) -> None:
    package = TRAINERS[trainer]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    killed = run_and_kill(trainer, tmp_path, after=17, save_every=4)
    assert killed == uninterrupted[: len(killed)]
    steps = len(killed) + 6
    assert steps <= STEPS
    both = run(trainer, tmp_path, steps=steps, save_every=4, resume=True)
    resumed = both[len(killed) :]
    assert resumed == uninterrupted[resumed[0].step - 1 : steps]
    # From the last checkpoint, not from the beginning.
    assert 1 < resumed[0].step <= len(killed) + 1


def test_the_examples_are_short() -> None:
    for path in EXAMPLES.glob("train_*.py"):
        assert len(path.read_text().splitlines()) < 140, path
        assert "--resume" in path.read_text(), path


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_network_has_smaller_errors_than_openpiv_after_300_steps(tmp_path: Path) -> None:
    def python(script: str, *arguments: str) -> str:
        command = [sys.executable, str(EXAMPLES / script), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    python("train_piv.py", f"--folder={tmp_path}", "--steps=300")
    printed = python("evaluate_piv.py", str(tmp_path), "--pairs=16")
    for name in ("kinematic", "Lamb-Oseen vortex", "Rankine vortex"):
        found = re.search(rf"^{name} +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", printed, re.M)
        assert found is not None, printed
        median, mean, their_median, their_mean = map(float, found.groups())
        assert median < their_median
        assert mean < their_mean
