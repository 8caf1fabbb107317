"""Files that say what they are: the same tensors and words make the same bytes, and come back."""

from __future__ import annotations

from pathlib import Path

import torch

from segue.models.labelled import read_labelled, write_labelled


def test_the_same_is_written_in_the_same_bytes(tmp_path: Path) -> None:
    tensors = {name: torch.arange(float(size)) for name, size in (("b", 3), ("a", 5))}
    said = {"model": "dots ☂", "size": [16, 16]}
    files: set[bytes] = set()
    for _ in range(12):
        path = tmp_path / "one.safetensors"
        write_labelled(path, tensors, kind="segue test 1", label="run", said=said)
        files.add(path.read_bytes())
        again, told = read_labelled(path, kind="segue test 1", label="run", wanted="Write one.")
        assert told == said
        assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    assert len(files) == 1
