# pyright: basic
"""Numbers come out of pickles; nothing else does, and nothing is run."""

from __future__ import annotations

import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest
import torch

from segue.errors import CheckpointError, UnsafeFileError
from segue.models.perceptual.unpickle import read_legacy_state_dict, read_numpy_tree


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def legacy(state, tmp_path) -> bytes:
    path = tmp_path / "state.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_tree_of_arrays_comes_out_as_it_was(protocol):
    rng = np.random.default_rng(0)
    arrays = {
        "a": {"kernel": rng.normal(size=(2, 3, 4)).astype("f4"), "bias": np.arange(3, dtype=">f8")},
        "b": {"c": {"turned": np.asfortranarray(rng.normal(size=(3, 5)))}, "count": np.arange(6, dtype="i8")},
    }
    found = read_numpy_tree(pickle.dumps(arrays, protocol))
    assert set(found) == {"a/kernel", "a/bias", "b/c/turned", "b/count"}
    np.testing.assert_array_equal(found["a/kernel"], arrays["a"]["kernel"])
    np.testing.assert_array_equal(found["a/bias"], arrays["a"]["bias"])
    np.testing.assert_array_equal(found["b/c/turned"], arrays["b"]["c"]["turned"])
    np.testing.assert_array_equal(found["b/count"], arrays["b"]["count"])


def test_a_legacy_state_dict_comes_out_as_torch_reads_it(tmp_path):
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = layer.state_dict()
    state["0.weight"] = state["0.weight"].contiguous(memory_format=torch.channels_last)
    state["window"] = torch.arange(12.0)[4:10].view(2, 3)
    found = read_legacy_state_dict(legacy(state, tmp_path))
    assert list(found) == list(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


def test_nothing_is_run(tmp_path):
    trap = tmp_path / "sprung"
    for read, data in (
        (read_numpy_tree, pickle.dumps({"a": Trap(trap)})),
        (read_legacy_state_dict, pickle.dumps(Trap(trap))),
        (read_legacy_state_dict, legacy(OrderedDict(a=torch.ones(2), b=Trap(trap)), tmp_path)),
    ):
        with pytest.raises(UnsafeFileError, match="mkdir"):
            read(data)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.exists()  # the trap works


def test_what_is_no_tree_of_numbers_is_refused():
    for data in (pickle.dumps([1, 2]), pickle.dumps({"a": "text"}), b"nonsense", pickle.dumps({"a": np.ones(3)})[:-20]):
        with pytest.raises(CheckpointError):
            read_numpy_tree(data)
    with pytest.raises((CheckpointError, UnsafeFileError)):
        read_numpy_tree(pickle.dumps({"a": np.array([{}], dtype=object)}))


def test_other_formats_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "new.pth"
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(CheckpointError):
        read_legacy_state_dict(path.read_bytes())
    data = legacy({"a": torch.ones(4, 4)}, tmp_path)
    assert struct.unpack("<q", data[-72:-64])[0] == 16
    with pytest.raises(CheckpointError, match="damaged"):
        read_legacy_state_dict(data[:-20])
