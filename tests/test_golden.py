"""States, bits and checkpoints of released versions; tests/golden/write.py makes the files."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from kinds import KINDS, RESIZED

from synthpix_torch import StateMismatchError, SynthPixDataset

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))

from write import NUMBERS, POSITION, bits, environment  # noqa: E402

FILES = {path.parent.name: json.loads(path.read_text()) for path in GOLDEN.glob("*/streams.json")}
NAMES = sorted({name for file in FILES.values() for name in file["kinds"]})


def bits_of(state: dict[str, Any]) -> str:
    """The version of the renderer's bits in a state; format 1 knows only the first."""
    if state["format"] == 1:
        return "1"
    values = dict(part.split("=", 1) for part in state["fingerprint"].split("|"))
    return str(values["bits"])


@pytest.mark.filterwarnings("ignore:The state was saved with other versions")
@pytest.mark.parametrize("name", NAMES)
def test_old_states_load_unless_the_renderer_has_other_bits(name: str, data: Path) -> None:
    made: list[str] = []
    refused = "version 1 of the renderer 'particles'"
    with opened(name, data) as dataset:
        for file in FILES.values():
            if (saved := file["kinds"].get(name)) is None:
                continue
            dataset.seek(0)
            if bits_of(saved["state"]) != bits_of(dataset.state_dict()):
                assert name.startswith("particles")
                with pytest.raises(StateMismatchError, match=refused):
                    dataset.load_state_dict(saved["state"])
                assert dataset.position == 0
                continue
            dataset.load_state_dict(saved["state"])
            assert dataset.position == POSITION
            if file["environment"] == environment():
                # Once for all versions.
                made = made or [bits(dataset.batch_at(number), data) for number in NUMBERS]
                assert made == saved["digests"]
    if not made:
        pytest.skip("the golden bits were made by other versions or on another CPU")


def opened(name: str, data: Path) -> SynthPixDataset:
    renderer, kind = name.split(": ")
    kinds = KINDS | RESIZED if renderer == "synthpix" else KINDS
    return SynthPixDataset(kinds[kind](data), renderer=renderer)


@pytest.mark.filterwarnings("ignore:The state was saved with other versions")
def test_a_key_that_is_added_later_changes_no_state(data: Path) -> None:
    with SynthPixDataset(KINDS["finite"](data)) as dataset:
        state = dataset.state_dict()
        description = dataset.stream.description
        dataset.stream.description = description._replace(
            values={**description.values, "new_key": "off"},
            neutral={**description.neutral, "new_key": "off"},
        )
        assert dataset.state_dict() == state
        dataset.load_state_dict(state)
        dataset.stream.description = description._replace(
            values={**description.values, "new_key": "on"},
            neutral={**description.neutral, "new_key": "off"},
        )
        with pytest.raises(StateMismatchError, match=r"new_key \(saved off, here on\)"):
            dataset.load_state_dict(state)
        later = dataset.state_dict()
        dataset.stream.description = description
        with pytest.raises(StateMismatchError, match=r"new_key \(saved on, here null\)"):
            dataset.load_state_dict(later)
