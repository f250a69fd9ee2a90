"""Bad input gets one sentence that says what to do, before anything has changed."""

import json
import os
from collections import UserList
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from beartype import BeartypeConf
from beartype.door import is_bearable
from kinds import KINDS, base, fields, write_h5, write_mat, write_npy
from synthpix.data_sources import hf_resolver

from synthpix_torch import SynthPixDataset
from synthpix_torch.config.config import Config
from synthpix_torch.config.fingerprint import short
from synthpix_torch.config.generator_keys import GENERATOR_KEYS
from synthpix_torch.config.key import REQUIRED
from synthpix_torch.config.keys import KEYS
from synthpix_torch.config.reading import read_config

LARGE: dict[str, Any] = {"image_shape": (32, 32), "flow_field_size": (40.0, 40.0)}


def files(folder: Path | str, **changes: Any) -> dict[str, Any]:
    changes = {"scheduler_class": ".npy", "file_list": [str(folder)], **changes}
    return base(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": None}, "lacks batch_size"),
        ({"dt": None, "seed": None, "rho_var": None}, "lacks dt, rho_var"),
        ({"dt": None}, r"lacks dt: add for example dt: 1\.0 \(seconds\)\."),
        ({"batchsize": 4}, "unknown key 'batchsize': did you mean 'batch_size'"),
        ({"wibble": 4}, "unknown key 'wibble': remove it"),
        ({"batch_size": 4.0}, "batch_size must be a positive integer up to 1048576, not 4.0"),
        ({"batch_size": True}, "batch_size must be a positive integer"),
        ({"batch_size": 0}, "batch_size must be a positive integer up to 1048576, not 0"),
        ({"seed": -1}, "seed must be an integer between 0"),
        ({"seed": 2**32}, "seed must be an integer between 0"),
        ({"randomize": "yes"}, "randomize must be true or false"),
        ({"image_shape": (16, 16, 3)}, "image_shape must be two positive integers"),
        ({"image_shape": (16.0, 16)}, "image_shape must be two positive integers"),
        ({"diameter_ranges": [(2, 1)]}, "diameter_ranges must be a list"),
        ({"diameter_ranges": (1, 2)}, "diameter_ranges must be a list"),
        ({"rho_ranges": [(-1, 0.5)]}, "rho_ranges must be a list"),
        ({"seeding_density_range": (0.2, 0.1)}, "seeding_density_range must be"),
        ({"p_hide_img1": 1.5}, "p_hide_img1 must be a probability"),
        ({"dt": float("nan")}, "dt must be a positive number"),
        ({"dt": 10**400}, "dt must be a positive number"),
        ({"output_units": "px"}, "output_units must be one of 'pixels'"),
        ({"scheduler_class": ".vtk"}, "scheduler_class must be one of '.npy'"),
        ({"scale_mode": "max"}, "scale_mode must be one of"),
        ({"flow_fields_per_batch": 5}, "flow_fields_per_batch=5 must not be larger"),
        ({"worker_count": 2}, "worker_count=2 would reorder the stream"),
        ({"device_ids": [0, 1]}, "one process per GPU"),
        ({"device_ids": [7]}, "device_ids requests device 7"),
        ({"use_grain_scheduler": False}, "legacy scheduler"),
        ({"scheduler_class": "HDF5FlowFieldScheduler"}, "legacy scheduler"),
        ({"img_offset": (1.0, 4.0)}, "img_offset along y is 1.0, but must be at least .* = 2.0"),
        ({"flow_field_size": (24.0, 21.0)}, "flow_field_size along x is 21.0, but .* 22.0"),
        (
            {"resolution": 0.5},
            r"img_offset 4\.0 \+ image 32\.0 \(16 px .* 0\.5\) \+ margin 2\.0 .* = 38\.0",
        ),
        ({"crop": (0, 0)}, "crop cuts image_shape from recorded images"),
        ({"diameter_definition": "fwhm"}, "diameter_definition must be one of '2 sigma', 'e"),
        ({"max_speed_x": -3.0}, "max_speed_x=-3.0 must not be less"),
        ({"velocities_per_pixel": 0.01}, "velocities_per_pixel=0.01 leaves no label"),
        ({"episode_length": 3}, "Episodes are made of files"),
        ({"include_images": True}, "Only scheduler_class '.h5', '.mat', '.flo' holds real images"),
        ({"scheduler_class": ".h5"}, "needs file_list"),
        ({"mask": 3}, "mask must be the path"),
        ({"mask": b"mask.npy"}, "mask must be the path of a .npy file, not b'mask.npy'"),
        ({"file_list": [b"data"]}, "file_list must be a file, a folder or a list of them, not"),
        ({"dt": 1e39}, r"dt holds 1e\+39: numbers must be 0 or have a magnitude from 1e-12 to 1e"),
        ({"diameter_ranges": [(1, 1e30)]}, r"diameter_ranges holds 1e\+30: numbers must"),
        ({"diameter_ranges": [(1, 2000)]}, r"pixels, more than 68719476736: lower diameter_ranges"),
        ({"batch_size": 10**12}, "batch_size must be a positive integer up to 1048576, not 10000"),
        ({"batch_size": 10**5000}, "batch_size must be .*, not an integer of 16610 bits"),
        ({"batch_size": 2**20, **LARGE}, r"hold 2.147e\+09 pixels, more .*: lower batch_size"),
        ({"num_examples": 2**63}, "num_examples must be a positive integer up to 2147483647"),
        ({"velocities_per_pixel": 1e9}, r"labels of a batch would hold .* lower velocities_per_p"),
        ({"buffer_size": 10**30}, "buffer_size must be an integer from 0 to 65536, not 1000"),
        ({"buffer_size": 1e30}, r"buffer_size must be an integer from 0 to 65536, not 1e\+30"),
        ({"num_threads": 10**6}, "num_threads must be an integer from 0 to 1024, not 1000000"),
        ({"seeding_density_range": (0, 1e9)}, "A pair would have up to .* particles, more than"),
        ({"rho_ranges": [[0, 0]] * 50_000}, "rho_ranges holds more than 100000 values: shorten"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SynthPixDataset(base(**changes))


def test_every_kind_of_configuration_is_read(data: Path) -> None:
    for kind in KINDS.values():
        read_config(kind(data))


def test_numpy_numbers_are_numbers() -> None:
    config = read_config(
        base(batch_size=np.int64(4), dt=np.float32(1), image_shape=np.array([16, 16]))
    )
    assert config.batch_size == 4
    assert config.image_shape == (16, 16)


def test_yaml_and_mapping_mean_the_same(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    lines = [
        f"{key}: {str(value).replace('(', '[').replace(')', ']')}" for key, value in base().items()
    ]
    path.write_text("\n".join(lines))
    assert read_config(path) == read_config(base())
    assert read_config(str(path)).fingerprint() == read_config(base()).fingerprint()


@pytest.mark.parametrize(
    ("content", "message"),
    [("- 1\n- 2", "must hold keys and values"), ("a: [", "is not a YAML file"), ("", "must hold")],
)
def test_a_file_without_keys_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        SynthPixDataset(tmp_path / "config.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.yaml' does not exist"):
        SynthPixDataset(tmp_path / "config.yaml")
    with pytest.raises(FileNotFoundError, match=r"mask\.npy' does not exist"):
        SynthPixDataset(base(mask=str(tmp_path / "mask.npy")))
    with pytest.raises(FileNotFoundError, match=r"file_list names .*flow_0\.npy"):
        SynthPixDataset(files(tmp_path / "flow_0.npy"))


def test_a_configuration_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="path of a YAML file or a mapping, not int"):
        SynthPixDataset(3)  # type: ignore[arg-type]


def test_masks_and_histograms_must_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.ones((8, 8)))
    with pytest.raises(ValueError, match=r"mask .* in the image_shape \(16, 16\)"):
        SynthPixDataset(base(mask=str(tmp_path / "mask.npy")))
    np.save(tmp_path / "histogram.npy", np.ones(256) * 2)
    with pytest.raises(ValueError, match="256 counts that sum to the 256 pixels"):
        SynthPixDataset(base(histogram=str(tmp_path / "histogram.npy")))
    np.save(tmp_path / "histogram.npy", np.array([-1.0] * 128 + [3.0] * 128))
    with pytest.raises(ValueError, match="256 counts"):
        SynthPixDataset(base(histogram=str(tmp_path / "histogram.npy")))
    np.save(tmp_path / "mask.npy", np.full((16, 16), 2))
    with pytest.raises(ValueError, match="must hold only 0 and 1"):
        SynthPixDataset(base(mask=str(tmp_path / "mask.npy")))
    for text in ("no array", ""):
        (tmp_path / "histogram.npy").write_text(text)
        with pytest.raises(ValueError, match=r"is not a \.npy file"):
            SynthPixDataset(base(histogram=str(tmp_path / "histogram.npy")))


@pytest.mark.parametrize(
    "array",
    [
        np.ones((16, 16), complex),
        np.ones((16, 16), "m8[s]"),
        np.ones((16, 16), "M8[s]"),
        np.full((16, 16), None),
        np.full((16, 16), "1"),
        np.zeros((16, 16), [("a", "f4")]),
        np.ones((16, 16), np.longdouble),
        np.full((16, 16), np.nan),
    ],
    ids=lambda array: str(array.dtype),
)
@pytest.mark.parametrize("key", ["mask", "histogram", "background", "seeding_image", "body_mask"])
def test_arrays_of_anything_but_numbers_are_refused(
    key: str, array: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "array.npy"
    np.save(path, array.ravel() if key == "histogram" else array)
    with pytest.raises(ValueError, match=rf"{key} .*array\.npy"):
        read_config(base(**{key: str(path)}))


@pytest.mark.parametrize("raw", [b"PK\3\4", b"\x93NUMPY", b"\x93NUMPY\1\0\4\0(((("])
def test_a_mask_that_is_no_array_file_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "mask.npy").write_bytes(raw)
    with pytest.raises(
        ValueError, match=r"The mask cannot be used: .*mask\.npy is not a \.npy file"
    ):
        read_config(base(mask=str(tmp_path / "mask.npy")))


def test_the_configuration_in_a_checkpoint_names_all_files_by_absolute_paths(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    for key in ("mask", "body_mask"):
        assert read_config(base(**{key: "mask.npy"})).as_json()[key] == str(data / "mask.npy")


@pytest.mark.parametrize(
    "address",
    [
        *("hf://", "hf://owner", "hf:///name", "hf://../name", "hf://a/b@", "hf://a/b:"),
        *("hf://a/b:/etc", "hf://a/b:../c", "hf://a/b:c/../../d", "hf://a/b/c", "hf://a@b/c"),
    ],
)
def test_a_malformed_address_is_refused_before_anything_is_downloaded(address: str) -> None:
    with pytest.raises(ValueError, match=f"names '{address}', which is no address on the Hugging"):
        SynthPixDataset(files(address))


@pytest.mark.parametrize("address", ["hf://a/b", "hf://a/b@refs/pr/1:some/folder", "hf://a/b:c"])
def test_an_address_is_downloaded_as_synthpix_does(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = []

    def resolve(spec: str) -> Path:
        resolved.append(spec)
        return write_npy(tmp_path, 4)

    monkeypatch.setattr(hf_resolver, "resolve_to_directory", resolve)
    with SynthPixDataset(files(address)) as dataset:
        assert dataset.stream.flows.records == 4
    assert resolved == [address]


@pytest.mark.parametrize("error", [RuntimeError("no route"), KeyError("sha")])
def test_a_download_that_fails_names_the_address(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(spec: str) -> Path:
        raise error

    monkeypatch.setattr(hf_resolver, "resolve_to_directory", resolve)
    with pytest.raises(OSError, match="names 'hf://a/b', which cannot be read: "):
        SynthPixDataset(files("hf://a/b"))


def test_names_of_files_that_are_no_text_are_read(tmp_path: Path) -> None:
    folder = write_npy(tmp_path, 4)
    (folder / "flow_3.npy").rename(os.fsdecode(os.fsencode(folder) + b"/flow_\xff.npy"))
    with SynthPixDataset(files(folder)) as dataset:
        assert len(json.dumps(dataset.state_dict())) < 2048


def test_folders_without_flow_fields_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"file_list {tmp_path / 'empty'} holds no flow fields"):
        SynthPixDataset(files(tmp_path / "empty"))
    write_npy(tmp_path / "full", 4)
    SynthPixDataset(files(f"{tmp_path / 'full'}//"))
    with pytest.raises(ValueError, match=r"empty.*holds no file that matches flow_\*\.npy"):
        SynthPixDataset(files("", file_list=[str(tmp_path / "full"), str(tmp_path / "empty")]))


def test_too_few_files_for_an_episode_are_named(data: Path) -> None:
    config = KINDS["episodes"](data) | {"episode_length": 9}
    with pytest.raises(ValueError, match="episode_length=9 files: shorten the episodes"):
        SynthPixDataset(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"randomize": True}, "time order"), ({"batches_per_flow_batch": 2}, "repeat the steps")],
)
def test_episodes_out_of_order_are_refused(
    data: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SynthPixDataset(KINDS["episodes"](data) | changes)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda field: field[:12], r"flow_3.*has shape \(12, 24, 2\), the first record has"),
        (lambda field: np.full_like(field, np.nan), r"flow_3.*holds NaN"),
        (lambda field: field[..., 0], r"flow_3.*must hold numbers of shape \(H, W, 2\)"),
        (lambda field: field.astype(str), r"flow_3.*must hold an array of numbers"),
        (lambda field: field.astype(float) * 1e39, r"flow_3.*too large values"),
    ],
)
def test_a_bad_record_surfaces_at_its_own_batch_and_the_position_stays(
    tmp_path: Path, spoil: Any, message: str
) -> None:
    folder = write_npy(tmp_path, 8)
    np.save(folder / "flow_3.npy", spoil(np.load(folder / "flow_3.npy")))
    config = files(folder, batch_size=1, flow_fields_per_batch=1, randomize=False)
    with SynthPixDataset(config, ahead=3) as dataset:
        batches = iter(dataset)
        # The second dispatches the third and meets the bad one.
        assert [next(batches).number for _ in range(3)] == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                next(batches)
            assert dataset.position == 3
        assert dataset.batch_at(4).number == 4
        np.save(folder / "flow_3.npy", fields(1)[0])
        assert [next(batches).number, next(batches).number] == [3, 4]


def _empty_h5(folder: Path) -> Path:
    h5py.File(folder / "003.h5", "w").close()
    return folder / "003.h5"


def _cut_npy(folder: Path) -> Path:
    path = folder / "flow_3.npy"
    path.write_bytes(path.read_bytes()[:-100])
    return path


def _cut_h5(folder: Path) -> Path:
    path = folder / "003.h5"
    path.write_bytes(path.read_bytes()[:-100])
    return path


@pytest.mark.parametrize(
    ("write", "kind", "spoil"),
    [(write_h5, ".h5", _empty_h5), (write_h5, ".h5", _cut_h5), (write_npy, ".npy", _cut_npy)],
)
def test_a_file_that_cannot_be_read_is_named_and_ends_no_pass(
    tmp_path: Path, write: Any, kind: str, spoil: Any
) -> None:
    path = spoil(write(tmp_path, 8))
    config = files(tmp_path, scheduler_class=kind, batch_size=1, flow_fields_per_batch=1)
    with SynthPixDataset(config | {"randomize": False}, epoch_length=6) as dataset:
        seen = []
        with pytest.raises(ValueError, match=path.name):
            seen += [batch.number for batch in dataset]
        assert dataset.position == 3


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (np.ma.masked_greater(fields(1)[0], 1.0), "a masked array with masked values"),
        (np.full((24, 24, 2), 2**33, np.uint64), "too large values"),
        (fields(1)[0][..., :1], "must hold numbers of shape"),
        (fields(1)[0][:0], "must hold numbers of shape"),
        (fields(1)[0] * 1e13, "too large values"),
        (fields(1)[0].astype(np.longdouble), "must hold numbers of shape"),
        (torch.ones(24, 24, 2, requires_grad=True), "Record 0 is not an array of numbers"),
    ],
    ids=["masked", "64 bits", "one component", "empty", "large", "long double", "requires grad"],
)
def test_a_record_that_would_silently_become_another_is_refused(record: Any, message: str) -> None:
    config = {key: value for key, value in base().items() if key != "scheduler_class"}
    with pytest.raises(ValueError, match=message):
        SynthPixDataset(config, source=[record] * 8)


def test_a_source_without_end_is_refused() -> None:
    class Endless(list[np.ndarray]):
        def __len__(self) -> int:
            return 2**63

    config = {key: value for key, value in base().items() if key != "scheduler_class"}
    with pytest.raises(ValueError, match="has more than 2147483647 records: shorten it"):
        SynthPixDataset(config, source=Endless(fields(1)))


def _recorded(folder: Path, convert: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Recorded pairs of 8 bits, converted in the first file."""
    write_mat(folder, 4, (16, 16))
    saved = scipy.io.loadmat(folder / "000.mat")
    images = {name: convert(saved[name].astype(np.uint16)) for name in ("I0", "I1")}
    scipy.io.savemat(folder / "000.mat", {"V": saved["V"], **images})
    return KINDS["real"](folder) | {"file_list": [str(folder)]}


@pytest.mark.parametrize("arguments", [{"scale_images": True}, {"image_dtype": torch.float16}])
@pytest.mark.parametrize("factor", [2, 1.1])
def test_recorded_images_that_are_too_bright_for_scaling_are_refused(
    arguments: dict[str, Any], factor: float, tmp_path: Path
) -> None:
    config = _recorded(tmp_path, lambda image: image * factor + 5)
    with pytest.raises(ValueError, match=r"levels up to .*: scale_images and 16-bit images are"):
        SynthPixDataset(config, **arguments)


def test_recorded_images_of_more_than_8_bits_are_served_unscaled(tmp_path: Path) -> None:
    config = _recorded(tmp_path, lambda image: image * 16)
    first = scipy.io.loadmat(tmp_path / "000.mat")["I0"]
    with SynthPixDataset(config) as dataset:
        np.testing.assert_array_equal(dataset.batch_at(0).images[0, 0], first)


def test_recorded_images_as_floats_of_8_bits_can_be_scaled(tmp_path: Path) -> None:
    config = _recorded(tmp_path, lambda image: image * 1.0)
    with SynthPixDataset(config, scale_images=True) as dataset:
        assert 0.9 < dataset.batch_at(0).images.max() <= 1


def test_an_image_that_synthpix_resizes_may_overshoot(tmp_path: Path) -> None:
    config = _recorded(tmp_path, lambda image: image * 1.1)
    SynthPixDataset(config, scale_images=True, renderer="synthpix").close()


def test_recorded_images_with_nan_are_refused(tmp_path: Path) -> None:
    config = _recorded(tmp_path, lambda image: image * np.nan)
    with pytest.raises(ValueError, match=r"Record 0 .*an image with NaN"):
        SynthPixDataset(config)


@pytest.mark.parametrize(
    "names",
    [
        ("flow_0.25", "flow_0.5", "flow_0.75", "flow_1.0"),
        ("flow_run10_t0", "flow_run10_t1", "flow_run1_t0", "flow_run1_t1"),
        ("flow_2026-01-31", "flow_2026-02-01"),
        ("flow_a", "flow_b"),
    ],
)
def test_files_of_episodes_may_have_any_names_in_order(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    write_npy(tmp_path / "too few", 2)
    (tmp_path / "too few" / "flow_1.npy").rename(tmp_path / "too few" / "flow_10.npy")
    for name in names:
        write_npy(tmp_path / "enough", 1)
        (tmp_path / "enough" / "flow_0.npy").rename(tmp_path / "enough" / f"{name}.npy")
    folders = [str(tmp_path / "enough"), *([str(tmp_path / "too few")] if len(names) > 2 else [])]
    length = min(len(names), 3)
    config = files("", file_list=folders, episode_length=length, randomize=False, loop=False)
    served = {tuple(names[at : at + length]) for at in range(len(names) - length + 1)}
    with SynthPixDataset(config) as dataset:
        batches = [dataset.batch_at(number).files for number in range(length)]
    episodes = {tuple(Path(file).stem for file in files) for files in zip(*batches, strict=True)}
    assert episodes - {("",) * length} == served


def test_files_of_episodes_may_be_named_without_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_npy(tmp_path, 4))
    names = [f"flow_{t}.npy" for t in range(4)]
    config = files("", file_list=names, episode_length=2, randomize=False)
    assert SynthPixDataset(config).batch_at(0).number == 0


def test_a_configuration_may_hold_numbers_of_numpy_and_other_sequences() -> None:
    wanted = SynthPixDataset(base()).state_dict()
    config = base(
        image_shape=(np.int64(16), np.int32(16)),
        diameter_ranges=UserList([UserList([np.float32(1), 2.0])]),
        loop=np.True_,
    )
    assert SynthPixDataset(config).state_dict() == wanted


def test_channels_first_are_refused_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "flow_0.npy", np.zeros((2, 24, 24)))
    with pytest.raises(ValueError, match=r"transpose it to \(H, W, 2\)"):
        SynthPixDataset(files(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"streams": 0}, ValueError, "streams must be at least 1"),
        ({"streams": 1.5}, TypeError, "streams must be an integer"),
        ({"streams": 10**30}, ValueError, "streams must be at most 2147483647, not 1000"),
        ({"epoch_length": 2**63}, ValueError, "epoch_length must be at most 10{15}, not"),
        ({"ahead": 10**9}, ValueError, "ahead must be at most 1000"),
        ({"layout": np.zeros(2)}, ValueError, "layout must be one of 'torch', 'synthpix', not"),
        ({"epoch_length": 0}, ValueError, "epoch_length must be at least 1"),
        ({"ahead": -1}, ValueError, "ahead must be at least 0"),
        ({"rank": 1}, ValueError, "rank and world_size belong together"),
        ({"rank": 2, "world_size": 2}, ValueError, "rank=2 must be less than world_size=2"),
        ({"renderer": "blender"}, ValueError, "renderer must be one of"),
        ({"layout": "NHWC"}, ValueError, "layout must be one of 'torch', 'synthpix'"),
        ({"image_dtype": torch.int8}, ValueError, "image_dtype must be one of torch.float32"),
        ({"scale_images": 2}, ValueError, "scale_images must be one of False, True"),
        ({"scale_images": 1}, ValueError, "scale_images must be one of False, True"),
        ({"device": "tpu"}, ValueError, "device must be 'cpu' or 'cuda'"),
        ({"device": "meta"}, ValueError, "device must be 'cpu' or 'cuda'"),
    ],
)
def test_a_wrong_argument_is_named(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SynthPixDataset(base(), **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_a_missing_gpu_is_an_error_only_if_it_was_asked_for() -> None:
    with pytest.raises(RuntimeError, match="needs a GPU and a torch built with CUDA"):
        SynthPixDataset(base(), device="cuda")
    assert SynthPixDataset(base()).device == torch.device("cpu")


def test_a_source_and_files_together_are_refused() -> None:
    with pytest.raises(ValueError, match="from `source` or from files, not from both"):
        SynthPixDataset(base(), source=fields(8))


def test_short_values_of_equal_numbers_are_equal() -> None:
    assert short((1.0, 2)) == short([1, 2.0]) == "[1,2]"
    assert short("a" * 30).startswith("#")
    assert len(short(list(range(100)))) <= 20


def test_every_key_of_the_stream_is_in_the_fingerprint() -> None:
    reading = {"num_threads", "buffer_size", "worker_count", "use_grain_scheduler", "device_ids"}
    named = {key for group in read_config(base()).fingerprint().values() for key in group}
    assert set(KEYS) - named == reading | {"file_list", "diameter_definition"}


def test_the_configuration_has_the_attributes_of_the_table() -> None:
    arrays = {name for name in Config.__dataclass_fields__ if name not in KEYS} - {"given"}
    assert set(KEYS) <= set(Config.__dataclass_fields__)
    assert all(read_config(base()).__getattribute__(name) is None for name in arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_every_attribute_has_its_type(kind: str, data: Path) -> None:
    config, types = read_config(KINDS[kind](data)), get_type_hints(Config)
    numbers = BeartypeConf(is_pep484_tower=True)
    assert [
        name for name in KEYS if not is_bearable(getattr(config, name), types[name], conf=numbers)
    ] == []


def test_every_key_has_a_meaning_and_a_default_or_an_example() -> None:
    assert [name for name, key in KEYS.items() if not key.meaning.endswith(".")] == []
    assert [
        name
        for name, key in KEYS.items()
        if key.default is REQUIRED and key.rule.convert(key.example) is None
    ] == []


@pytest.mark.parametrize("kind", ["kinematic", "npy, repeated", "real"])
def test_a_value_is_neutral_exactly_if_it_is_the_default(kind: str, data: Path) -> None:
    config = read_config(KINDS[kind](data))
    values = {key: value for group in config.fingerprint().values() for key, value in group.items()}
    neutral = {key for key, value in values.items() if config.neutral(key) == value}
    changed = {
        name
        for name, value in config.given.items()
        if KEYS[name].group and value != KEYS[name].default_for(include_images=kind == "real")
    }
    if kind == "npy, repeated":
        changed -= set(GENERATOR_KEYS)
    assert set(values) - neutral == changed


def test_diameters_of_4_sigma_are_converted_once() -> None:
    given = base(diameter_ranges=[(4.0, 8.0)], diameter_var=0.4, diameter_definition="e^-2")
    config = read_config(given)
    assert config.diameter_ranges == ((2.0, 4.0),)
    assert config.diameter_var == 0.1
    assert config.fingerprint() == read_config(base(diameter_ranges=[(2, 4)])).fingerprint()
    assert read_config(config.as_json()) == replace(config, diameter_definition="2 sigma")
