# pyright: basic
"""Memory that runs out: what was being done and what to change is said, and nothing finished is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from segue.errors import ExhaustedError, ExhaustedRunError
from segue.media.clip import Clip
from segue.models.exhaustion import told_if_exhausted
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition

REFUSALS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_every_refusal_is_told(error) -> None:
    with (
        pytest.raises(ExhaustedError, match="out of memory while counting: count less"),
        told_if_exhausted("counting", "count less"),
    ):
        raise error


def test_other_errors_are_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), told_if_exhausted("counting", "count less"):
        raise RuntimeError("shapes do not match")


class Full:
    """A network for which there is memory so often."""

    def __init__(self, network: Any, calls: int) -> None:
        self.network, self.left = network, calls

    def __call__(self, *inputs: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise REFUSALS[0]
        return self.network(*inputs)


def crowded(model: Any, calls: int) -> Any:
    return replace(model, denoiser=replace(model.denoiser, network=Full(model.denoiser.network, calls)))


FILM = Transition(("a boat", "a house"), seconds=1, fps=5, sampling=Sampling(steps=4))


def test_a_run_says_what_it_did_and_what_to_change(model) -> None:
    said = (
        r"out of memory while denoising 4 rows of 8x8 latents in one call: take --max-batch 2, --offload model, "
        r"--storage float8 or a smaller --size; segue doctor --model says"
    )
    with pytest.raises(ExhaustedRunError, match=said) as caught:
        FILM.run(crowded(model, 0), Execution(max_batch=4))
    assert caught.value.partial is None
    with pytest.raises(ExhaustedRunError, match=r"denoising 1 rows of 8x8 latents in one call: take --offload model"):
        FILM.run(crowded(model, 0), Execution(max_batch=1))


def test_finished_pictures_are_kept(model, tmp_path) -> None:
    for calls in range(4, 40):
        with pytest.raises(ExhaustedRunError) as caught:
            FILM.run(crowded(model, calls), Execution(max_batch=4))
        if caught.value.partial is not None:
            break
    clip = caught.value.partial
    assert clip is not None
    assert 2 <= len(clip) < FILM.frames
    assert "pictures were finished" in str(caught.value)
    clip.save(tmp_path / "part.gif")
    assert (tmp_path / "part.gif").is_file()


class Late:
    """Frames of which the last can't be decoded."""

    size = (32, 32)
    pace = 2

    def __len__(self) -> int:
        return 5

    def __getitem__(self, window: slice) -> torch.Tensor:
        if window.start > 1:
            raise ExhaustedError("out of memory while decoding")
        return torch.zeros(len(range(5)[window]), 3, 32, 32)


def test_frames_that_were_written_are_kept(tmp_path) -> None:
    with pytest.raises(ExhaustedRunError, match=r"while decoding; .* holds \d of 5 frames") as caught:
        Clip(Late(), fps=4).save(tmp_path / "film.gif")
    assert 0 < caught.value.frames < 5
    assert caught.value.path is not None
    assert caught.value.path.is_file()


def test_decoding_says_what_it_did(model, monkeypatch) -> None:
    def full(*_: Any) -> torch.Tensor:
        raise REFUSALS[0]

    monkeypatch.setattr(type(model.codec), "_decode", full)
    with pytest.raises(ExhaustedError, match=r"decoding 2 x 64x64 pixels: take a smaller --tile, --offload"):
        model.codec.decode(torch.zeros(2, 4, 8, 8))
