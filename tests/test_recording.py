"""A recording has the bits of the dataset, whatever interrupted it, and notices every change."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import torch
from kinds import base
from safetensors import safe_open
from torch.utils.data import DistributedSampler
from torchdata.nodes import (
    IterableWrapper,
    Loader,
    MapStyleWrapper,
    MultiNodeWeightedSampler,
    StopCriteria,
)

from synthpix_torch import Batch, Checkpointer, Recording, RecordingError, SynthPixDataset, record
from synthpix_torch.cli import main
from synthpix_torch.files import write_pieces
from synthpix_torch.recording import manifest as files
from synthpix_torch.recording.batches import to_tensors


@pytest.fixture(scope="module")
def dataset() -> SynthPixDataset:
    """Finite data whose last batch has empty slots."""
    return SynthPixDataset(base(loop=False, image_shape=(16, 20), flow_field_size=(24.0, 28.0)))


@pytest.fixture(scope="module")
def last(dataset: SynthPixDataset) -> range:
    total = dataset.stream.total
    assert total is not None
    return range(total - 3, total)


@pytest.fixture(scope="module")
def recorded(
    dataset: SynthPixDataset, last: range, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A recording of the last batches, a batch in each shard."""
    return record(dataset, tmp_path_factory.mktemp("r") / "a", last, shard_batches=1)


def pairs_of(dataset: SynthPixDataset, numbers: range) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return images and flow fields of the filled slots."""
    batches: list[Batch] = [dataset.batch_at(number) for number in numbers]
    return [
        (batch.images[slot], batch.flow_fields[slot])
        for batch in batches
        for slot in range(len(batch.mask))
        if batch.mask[slot]
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_recording_has_the_bits_of_the_stream(
    dataset: SynthPixDataset, last: range, recorded: Path
) -> None:
    recording = Recording(recorded)
    expected = pairs_of(dataset, last)
    assert len(recording) == len(expected) < 3 * 4
    for pair, (images, flow_fields) in zip(recording, expected, strict=True):  # type: ignore[call-overload]
        assert torch.equal(pair.images, images)
        assert torch.equal(pair.flow_fields, flow_fields)
        assert pair.valid_flow_mask.all()
    assert [recording[1:3][place].number for place in (0, 1)] == [last.start] * 2
    assert [recording[-1].slot, recording[1].slot] == [len(recording) - 9, 1]
    assert dataset.position == 0


def test_anyone_reads_a_shard_with_safetensors(
    dataset: SynthPixDataset, last: range, recorded: Path
) -> None:
    with safe_open(recorded / "shards" / "000000.safetensors", framework="np") as file:
        about = json.loads(file.metadata()["synthpix_torch"])
        images = file.get_tensor("images")
    assert about["units"] == {"flow_fields": "pixels", "images": "grey levels of 255"}
    assert np.array_equal(images, dataset.batch_at(last.start).images.numpy())


def test_workers_of_a_shuffled_dataloader_read_it(recorded: Path) -> None:
    script = f"""
import torch
from torch.utils.data import DataLoader
from synthpix_torch import Recording
recording = Recording({str(recorded)!r})
recording[0]
loader = DataLoader(recording, batch_size=2, num_workers=2, shuffle=True)
found = torch.cat([batch.images.flatten(1) for batch in loader])
expected = torch.stack([recording[i].images.flatten() for i in range(len(recording))])
assert torch.equal(found.sort(0).values, expected.sort(0).values)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_an_interrupted_recording_is_finished_without_repeating_a_shard(
    dataset: SynthPixDataset,
    last: range,
    recorded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.replace
    for calls in range(20):
        left = [calls]

        def fails(source: Any, target: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
            real(source, target)

        monkeypatch.setattr(os, "replace", fails)
        folder = tmp_path / str(calls)
        try:
            record(dataset, folder, last, shard_batches=1)
        except OSError:
            assert not list(folder.rglob("*.unfinished-*"))
            if (folder / "plan.json").exists():
                with pytest.raises(RecordingError, match=r"incomplete.*call record again"):
                    Recording(folder)
        else:
            break
        finally:
            monkeypatch.setattr(os, "replace", real)
        before = {path: path.stat().st_mtime_ns for path in folder.glob("shards/*.json")}
        complete = [path.with_suffix(".safetensors") for path in before]
        times = {path: path.stat().st_mtime_ns for path in complete}
        record(dataset, folder, last, shard_batches=1)
        assert times == {path: path.stat().st_mtime_ns for path in complete}
        assert contents(folder) == contents(recorded)
    assert 6 <= calls < 20


def test_ranks_share_the_work(
    dataset: SynthPixDataset, last: range, recorded: Path, tmp_path: Path
) -> None:
    for rank in (1, 0):
        part = SynthPixDataset(dataset.recipe["config"], rank=rank, world_size=2)
        record(part, tmp_path / "a", last, shard_batches=1)
        assert (tmp_path / "a" / "manifest.json").exists() == (rank == 0)
    assert contents(tmp_path / "a") == contents(recorded)


def test_verify_finds_every_changed_byte(recorded: Path, tmp_path: Path) -> None:
    assert Recording(recorded).verify() == []
    copy = tmp_path / "copy"
    shutil.copytree(recorded, copy)
    rng = np.random.default_rng(0)
    for path in sorted(copy.rglob("*.*")):
        whole = path.read_bytes()
        for place in {0, len(whole) - 1, *map(int, rng.integers(0, len(whole), 20))}:
            changed = bytearray(whole)
            changed[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            try:
                faults = Recording(copy).verify()
            except RecordingError as error:
                faults = [str(error)]
            assert faults, (path, place)
            assert str(path) in faults[0] or "incomplete" in faults[0]
        path.write_bytes(whole)
    assert Recording(copy).verify() == []


def test_a_recording_without_data_makes_its_pairs_again(
    dataset: SynthPixDataset, last: range, tmp_path: Path
) -> None:
    folder = record(dataset, tmp_path / "digests", last, data=False)
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]
    bare = (folder / "manifest.json").stat().st_size - 40 * len(last)
    assert bare + 1000 * 60 < 100 * 1024
    recording = Recording(folder)
    assert recording.verify() == []
    for pair, (images, flow_fields) in zip(recording, pairs_of(dataset, last), strict=True):  # type: ignore[call-overload]
        assert torch.equal(pair.images, images)
        assert torch.equal(pair.flow_fields, flow_fields)

    manifest = files.read_manifest(folder)
    digests = manifest.shards[0].digests
    assert digests is not None
    digests[1] = digests[0]
    files.write_manifest(folder, manifest._replace(made_with={"jax": "0.0.1"}))
    changed = Recording(folder)
    (fault,) = changed.verify()
    number = last.start + 1
    assert fault.startswith(f"batch {number} differs from the recording (made with jax 0.0.1 there")
    with pytest.raises(RecordingError, match=f"batch {number} differs"):
        changed[5]
    with pytest.raises(RecordingError, match=r"makes other batches.*differs in .*seed="):
        Recording(folder, config={"seed": 4})


@pytest.mark.parametrize("refused", ["nothing", "every", "some"])
def test_every_file_system_gets_the_same_bytes(
    refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = np.random.default_rng(0).bytes(2 * 2**20 + 5000)
    memory, real = memoryview(content), os.write

    def refuses(descriptor: int, data: memoryview) -> int:
        direct = fcntl.fcntl(descriptor, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0)
        if direct and (refused == "every" or len(data) < 2**20):
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, data[:600_000])

    if refused != "nothing":
        monkeypatch.setattr(os, "write", refuses)
    for sizes in ((0,), (1,), (4096,), (len(content),), (7, 2**20, 0, 300)):
        places = np.cumsum((0, *sizes))
        write_pieces(tmp_path / "a", [memory[a:b] for a, b in pairwise(places)])
        assert (tmp_path / "a").read_bytes() == content[: places[-1]]


def test_a_batch_that_cannot_be_recorded_leaves_nothing_of_its_shard(
    dataset: SynthPixDataset, last: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(batch: Batch, **options: Any) -> dict[str, torch.Tensor]:
        if batch.number == last.start + 1:
            raise MemoryError("no memory")
        return to_tensors(batch, **options)

    with monkeypatch.context() as patch:
        patch.setattr("synthpix_torch.recording.writing.to_tensors", fails)
        with pytest.raises(MemoryError, match="no memory"):
            record(dataset, tmp_path / "a", last, shard_batches=2)
    # The other shard may have been written meanwhile.
    assert list((tmp_path / "a" / "shards").glob("*000000*")) == []
    assert len(Recording(record(dataset, tmp_path / "a", last, shard_batches=2))) > 4


@pytest.mark.parametrize(("storage", "levels"), [("uint8", 1), ("uint16", 257)])
def test_integers_lose_half_a_level_of_theirs(
    storage: str, levels: int, dataset: SynthPixDataset, tmp_path: Path
) -> None:
    recording = Recording(record(dataset, tmp_path / "a", range(1), images=storage))
    batch = dataset.batch_at(0)
    for pair, images in zip(recording, batch.images, strict=True):  # type: ignore[call-overload]
        assert pair.images.dtype == torch.float32
        error = float((pair.images - images).abs().max())
        assert 0 < error <= 0.5 / levels * 1.001
    assert f"images as {storage}" in repr(recording)


def test_other_programs_read_what_is_exported(
    dataset: SynthPixDataset, last: range, recorded: Path, tmp_path: Path
) -> None:
    recording, expected = Recording(recorded), pairs_of(dataset, last)
    for form in ("hdf5", "flo", "npz"):
        recording.export(tmp_path / form, form=form)
    with h5py.File(tmp_path / "hdf5") as file:
        assert file["flow_fields"].attrs["unit"] == "pixels"
        assert json.loads(file.attrs["configuration"])["seed"] == 3
        assert file["images"].chunks == (1, 2, 16, 20)
        stored = [file["images"][:], file["flow_fields"][:]]
    arrays = [np.load(path) for path in sorted((tmp_path / "npz").iterdir())]
    zipped = [np.concatenate([part[name] for part in arrays]) for name in ("images", "flow_fields")]
    for index, (images, flow_fields) in enumerate(expected):
        for found in (stored, zipped):
            assert np.array_equal(found[0][index], images.numpy())
            assert np.array_equal(found[1][index], flow_fields.numpy())
        name = tmp_path / "flo" / f"{index:0{len(str(len(expected) - 1))}}"
        for which in (0, 1):
            image = tifffile.imread(f"{name}_img{which + 1}.tif")
            assert image.dtype == np.uint16
            assert np.abs(image / 257 - images[which].numpy()).max() <= 0.5 / 257 * 1.001
        words = np.fromfile(f"{name}_flow.flo", "<f4")
        assert words[0] == np.float32(202021.25)
        assert words[1:3].view("<i4").tolist() == [20, 16]
        flow = words[3:].reshape(16, 20, 2)
        assert np.array_equal(flow.transpose(2, 0, 1), flow_fields.numpy())
    with pytest.raises(ValueError, match="npz exists: choose another name"):
        recording.export(tmp_path / "npz", form="npz")
    with pytest.raises(ValueError, match="form must be one of hdf5, flo, npz, not 'png'"):
        recording.export(tmp_path / "png", form="png")


def test_its_batches_are_those_of_the_stream(
    dataset: SynthPixDataset, last: range, recorded: Path
) -> None:
    recording = Recording(recorded)
    assert len(recording.batches) == 3
    for number, found in zip(last, recording.batches, strict=True):  # type: ignore[call-overload]
        expected = dataset.batch_at(number)
        filled = expected.mask
        assert torch.equal(found.images, expected.images[filled])
        assert torch.equal(found.keys.view(torch.int32), expected.keys.view(torch.int32)[filled])
        assert found.params is not None
        assert expected.params is not None
        assert torch.equal(found.params.diameter_ranges, expected.params.diameter_ranges[filled])
        assert found.number == number
    with pytest.raises(ValueError, match=f"batches {last.start} to {last.stop - 1}, not 99"):
        recording.batch_at(99)


def test_lightning_validates_on_a_recording(recorded: Path) -> None:
    lightning = pytest.importorskip("synthpix_torch.lightning")
    data = lightning.SynthPixDataModule(base(), val=Recording(recorded))
    data.setup("fit")
    assert [batch.number for batch in data.val_dataloader()] == [1, 2, 3]
    with pytest.raises(ValueError, match="leave out val_batches"):
        lightning.SynthPixDataModule(base(), val=Recording(recorded), val_batches=2)


def test_a_mixture_with_the_stream_resumes_bit_for_bit(
    dataset: SynthPixDataset, recorded: Path, tmp_path: Path
) -> None:
    def mixture() -> Loader[Batch]:
        batches = Recording(recorded).batches
        sources = {
            "stream": IterableWrapper(SynthPixDataset(dataset.recipe["config"])),
            "recording": MapStyleWrapper(batches, DistributedSampler(batches, 1, 0, seed=1)),
        }
        weights = {"stream": 0.6, "recording": 0.4}
        return Loader(MultiNodeWeightedSampler(sources, weights, StopCriteria.CYCLE_FOREVER))

    def take(loader: Loader[Batch], count: int) -> list[tuple[int, bytes]]:
        taken = islice(loader, count)
        return [(batch.number, batch.images.numpy().tobytes()) for batch in taken]

    expected = take(mixture(), 15)
    assert {0, 1, 2} < {number for number, _ in expected}
    for count, through in ((1, "checkpointer"), (6, "loader"), (11, "checkpointer")):
        first, second = mixture(), mixture()
        assert take(first, count) == expected[:count]
        if through == "loader":
            second.load_state_dict(first.state_dict())
        else:
            for loader in (first, second):
                with Checkpointer(tmp_path / str(count)) as checkpoints:
                    checkpoints.register(mixture=loader)
                    if checkpoints.restore() is None:
                        checkpoints.save(count)
        assert take(second, 15 - count) == expected[count:]


def test_a_folder_of_something_else_is_left_alone(
    dataset: SynthPixDataset, last: range, recorded: Path, tmp_path: Path
) -> None:
    before = contents(recorded)
    with pytest.raises(RecordingError, match=r"another recording, with first \d+ instead of 0"):
        record(dataset, recorded, range(2))
    other = SynthPixDataset(base(seed=9))
    with pytest.raises(RecordingError, match="another recording, with fingerprint"):
        record(other, recorded, last)
    assert contents(recorded) == before
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds something else: choose a new folder"):
        record(dataset, tmp_path, last)
    with pytest.raises(FileNotFoundError, match="holds no recording"):
        Recording(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(recorded, copy)
    (copy / "shards" / "000001.safetensors").unlink()
    with pytest.raises(RecordingError, match=r"000001.safetensors is missing: restore it"):
        Recording(copy)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (range(0), "not empty"),
        (range(0, 4, 2), "step 1"),
        (range(10**6), "stream"),
    ],
)
def test_batches_that_do_not_exist_are_refused_before_anything_is_written(
    batches: range, message: str, dataset: SynthPixDataset, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        record(dataset, tmp_path / "a", batches)
    assert not (tmp_path / "a").exists()


def test_the_command_records_and_exports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**base(), "image_shape": [16, 16]}))
    assert main(["export", str(config), "0:2", str(tmp_path / "a")]) == 0
    assert len(Recording(tmp_path / "a")) == 8
    assert main(["export", str(config), "0:1", str(tmp_path / "b"), "--form", "flo"]) == 0
    assert len(list((tmp_path / "b").glob("*.flo"))) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "config.json"]
    assert main(["preview", str(tmp_path / "a"), "-o", str(tmp_path / "a.gif")]) == 0
    with pytest.raises(SystemExit):
        main(["export", str(config), "5", str(tmp_path / "c")])
    assert "write FIRST:STOP" in capsys.readouterr().err


RUN = """
import sys
from kinds import base
from synthpix_torch import SynthPixDataset, record
folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dataset = SynthPixDataset(base(), rank=rank, world_size=world)
dataset.batch_at(0)
print("begins", flush=True)
record(dataset, folder, range(1000), shard_batches=2)
"""


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_kills_repeat_and_lose_no_batch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    recorded, kills = tmp_path / "a", 0
    while not (recorded / "manifest.json").exists():
        world = 1 + kills % 2
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", RUN, str(recorded), str(rank), str(world)],
                stdout=subprocess.PIPE,
                env=environment,
            )
            for rank in range(world)
        ]
        for run in runs:
            assert run.stdout is not None
            run.stdout.readline()
        if kills < 100:
            time.sleep(float(rng.uniform(0, 0.05)))
            for run in runs:
                run.kill()
            kills += 1
        for run in runs:
            run.communicate()
    record(SynthPixDataset(base()), tmp_path / "b", range(1000), shard_batches=2)
    assert contents(recorded) == contents(tmp_path / "b")
    assert kills == 100
