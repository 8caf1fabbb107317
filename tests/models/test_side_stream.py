# pyright: basic
"""Decoding beside the drawing: for which models, and what is asked of a card, which need not be there."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from segue.errors import ExhaustedError
from segue.models.decoding import bytes_per_latent
from segue.models.preview import QuickCodec
from segue.models.side_stream import SideStream, side_stream
from segue.tasks.ahead import Ahead

CARD = torch.device("cuda")
LATENTS = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(0))
EMPTY = torch.empty


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """What is asked of a card, by name and in order; pinned memory is plain memory."""
    found: list[str] = []

    def says(name):
        return lambda *given: found.append(name)

    @contextmanager
    def entered(stream):
        found.append("enter")
        yield
        found.append("leave")

    def stream(device):
        assert device == CARD
        return SimpleNamespace(wait_stream=lambda main: found.append(f"wait for {main}"))

    def empty(*shape, pin_memory=False, **given):
        if pin_memory:
            found.append("pinned")
        return EMPTY(*shape, **given)

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "main")
    monkeypatch.setattr(torch.cuda, "Event", lambda: SimpleNamespace(record=says("record"), synchronize=says("wait")))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: found.append("hold"))
    monkeypatch.setattr(torch, "empty", empty)
    return found


def placed(model, **kept):
    return replace(model, device=CARD, placement=SimpleNamespace(**{"offload": None, "compile": None, **kept}))


@pytest.mark.parametrize("kept", [{}, {"compile": "default"}])
def test_a_card_that_keeps_its_networks_decodes_beside_the_drawing(model, asked, kept):
    beside = side_stream(placed(model, **kept))
    assert isinstance(beside, SideStream)
    assert (beside.codec, beside.device, beside.per_latent) == (model.codec, CARD, bytes_per_latent(model.codec))
    assert beside.per_latent > 0


@pytest.mark.parametrize("kept", [{"offload": "model"}, {"offload": "sequential"}, {"compile": "graphs"}])
def test_none_does_where_networks_take_turns_or_kernels_are_recorded(model, asked, kept):
    assert side_stream(placed(model, **kept)) is None


def test_none_does_on_a_cpu_or_with_a_codec_that_is_not_known(model, asked):
    assert side_stream(replace(placed(model), device=torch.device("cpu"))) is None
    assert side_stream(replace(placed(model), codec=QuickCodec(model.codec, model.codec))) is None


def test_pictures_are_the_codecs_after_what_was_asked_before(model, asked, monkeypatch):
    decode = type(model.codec).decode
    monkeypatch.setattr(type(model.codec), "decode", lambda *given: asked.append("decode") or decode(*given))
    copy = SideStream(model.codec, CARD, 1.0)(LATENTS)
    assert asked == ["wait for main", "hold", "enter", "decode", "pinned", "record", "leave"]
    pictures = copy.wait()
    assert asked.pop() == "wait"
    assert torch.equal(pictures, model.codec.decode(LATENTS))


def test_room_is_what_is_free_less_the_most_that_others_take(model, asked, monkeypatch):
    """100 free and 30 held of which 20 are used, by others once 50: 110 are there, and 30 of them spoken for."""
    counts = {"memory_reserved": 30, "memory_allocated": 20, "max_memory_allocated": 50}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    for name, count in counts.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, count=count: count)
    for places, room in ((80, True), (81, False)):
        assert SideStream(model.codec, CARD, 1.0).has_room(torch.zeros(1, 4, 1, places)) == room


@pytest.mark.parametrize("said", ["CUDA error: out of memory", "CUDA error: OS call failed or not supported"])
def test_without_pinned_memory_pictures_are_left_for_later(model, asked, monkeypatch, said):
    def refused(*shape, pin_memory=False, **given):
        if pin_memory:
            raise RuntimeError(said)
        return EMPTY(*shape, **given)

    monkeypatch.setattr(torch, "empty", refused)
    beside = SideStream(model.codec, CARD, 0.0)
    with pytest.raises(ExhaustedError, match="no pinned main memory for pictures of 2x3x64x48 floats"):
        beside(LATENTS)
    assert "hold" in asked, "kernels may still read them"
    monkeypatch.setattr(SideStream, "has_room", lambda self, latents: True)
    ahead = Ahead(beside, lambda *given: pytest.fail("nothing was begun"))
    assert not ahead.begin(LATENTS, [0, 1], [0.0, 1.0])
    assert (len(ahead), ahead.most) == (0, 0)
