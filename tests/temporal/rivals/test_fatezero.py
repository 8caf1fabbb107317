"""FateZero: the source's layout with the prompt's words, and the source itself where the words are the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segue.errors import TaskError
from segue.models.attention import sites
from segue.models.attention_maps import MapReader, kept_words
from segue.models.bundle import LatentDiffusion
from segue.models.loading import load_model
from segue.temporal.inversion import Inversion
from segue.temporal.rivals.fatezero import FateZero
from segue.temporal.rivals.inputs import RivalInputs
from segue.types import Denoiser, Progress, silent
from temporal.rivals.clips import alone, back, inputs
from toy import HashedText


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model(written: Path) -> LatentDiffusion:
    return load_model(written, device="cpu")


def same_words(given: RivalInputs) -> RivalInputs:
    """Told what the source shows, and no more."""
    words = tuple((place, place) for place in range(given.source.cond.text.shape[1]))
    return replace(given, cond=given.source.cond, source=replace(given.source, kept_words=words))


@dataclass(frozen=True)
class Known(RivalInputs):
    """Whose inversion is exact: the way that the source itself goes down, looking at its middle frame."""

    def inversion(self, denoiser: Denoiser, rounds: int, progress: Progress = silent) -> Inversion:
        start = replace(self.noised(), ids=self.source_rows)
        states = list(self.states(denoiser, start, cond=self.source.cond))
        return Inversion({int(state.step[0]): state.x for state in states}, self.first, self.source_rows)


def test_the_same_prompt_returns_the_source(model: LatentDiffusion) -> None:
    """Its own maps, taken over, change nothing; other words do."""
    given = same_words(inputs(model, 3, by=8))
    known = Known(**{item.name: getattr(given, item.name) for item in fields(given)})
    unfused, fused = (FateZero(share, share).run(known).latents for share in (0.0, 1.0))
    assert torch.allclose(fused, unfused, atol=1e-4)
    other = replace(known, cond=model.text(["a cat"])[[0] * 3])
    assert float((FateZero(1.0, 1.0).run(other).latents - unfused).abs().max()) > 1e-2


def test_without_fusing_it_is_attention_to_the_middle_frame(model: LatentDiffusion) -> None:
    given = inputs(model, 3, by=8)
    idle = FateZero(0.0, 0.0, rounds=0).run(given).latents
    assert torch.allclose(idle[1:2], back(alone(given, 1), 0), atol=1e-5), "the middle one attends to itself"
    assert torch.allclose(FateZero(most=0, rounds=0).run(given).latents, idle, atol=1e-5)
    for how in (FateZero(0.8, 0.0, rounds=0), FateZero(0.0, 0.8, rounds=0)):
        assert float((how.run(given).latents - idle).abs().max()) > 1e-4


def test_each_kind_of_map_acts_as_long_as_it_is_told(model: LatentDiffusion) -> None:
    given = inputs(model, 3, by=8)
    assert torch.equal(FateZero(0.1, 0.1).run(given).latents, FateZero(0.0, 0.0).run(given).latents)
    nothing = replace(given, source=replace(given.source, kept_words=()))
    fused, plain = (FateZero(0.0, share).run(nothing).latents for share in (1.0, 0.0))
    assert torch.allclose(fused, plain, atol=1e-6), "no word is kept"


def test_maps_are_read_as_the_network_makes_them(model: LatentDiffusion) -> None:
    """Applied to the values that they belong to, they are its own answer: at every site of a UNet."""
    reader, drawn = MapReader(), torch.Generator().manual_seed(1)
    for site in sites(model.parts["unet"]):
        attn: Any = site.module
        hidden = torch.randn(2, 9, attn.to_q.in_features, generator=drawn)
        context = torch.randn(2, 5, attn.to_k.in_features, generator=drawn)
        weights = reader.weights(site, hidden, context)
        assert torch.allclose(weights.sum(3), torch.ones_like(weights[..., 0]), atol=1e-5)
        assert torch.allclose(reader.answer(site, weights, context), attn(hidden, context), atol=1e-5)


def test_another_kind_of_attention_is_not_read(model: LatentDiffusion) -> None:
    class Spot:
        name = "somewhere"

    with pytest.raises(TaskError, match="somewhere"):
        MapReader().weights(Spot(), torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))
    with pytest.raises(TaskError, match="not read"):
        FateZero().run(replace(inputs(model, 2), reader=None))
    with pytest.raises(TaskError, match="shares"):
        FateZero(self_until=1.2)


def test_words_are_kept_that_both_prompts_have(model: LatentDiffusion) -> None:
    pairs = kept_words(model.text, "a red cat", "a sun cat")
    context = model.text(["a"]).text.shape[1]
    assert (0, 0) in pairs
    assert (1, 1) in pairs
    assert (2, 2) not in pairs
    assert context - 1 in pairs[-1], "what fills both up is kept to the end of the shorter"
    assert kept_words(model.text, "a cat", "a cat") == tuple((k, k) for k in range(context))
    longer = kept_words(model.text, "apple", "red apple")
    assert any(new == old + 1 for new, old in longer), "what comes later is found where it now stands"
    with pytest.raises(TaskError, match="CLIP"):
        kept_words(HashedText(), "a", "b")
