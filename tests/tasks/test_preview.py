"""A small decoder shows and measures, and never draws the film unless it is asked to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from segue.media.clip import levels_of
from segue.models.bundle import LatentDiffusion
from segue.models.preview import Preview, QuickCodec, Use
from segue.tasks.branching import Branching
from segue.tasks.live import Live
from segue.tasks.transition import Transition
from segue.tasks.transition_plan import TransitionPlan
from shown import pixels, record
from toy import PatchCodec, toy_model

FILM = Transition(("one", "two", "three"), seconds=2.0, fps=20, seeds=(1, 2, 3))
LIVE = Live("one", seed=3, between=6, seconds=1.5)


class Counting(PatchCodec):
    """Counts the pictures that it decodes."""

    def __init__(self) -> None:
        self.decoded = 0

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded += len(latents)
        return super().decode(latents)


class Grey(Counting):
    """A small decoder that sees no colour, and the left half better than the right: its distances are others."""

    def decode(self, latents: Tensor) -> Tensor:
        grey = super().decode(latents).mean(1, keepdim=True).expand(-1, 3, -1, -1)
        return grey * torch.linspace(1, 0.2, grey.shape[-1])


def with_grey(use: Use, own: PatchCodec | None = None, small: Grey | None = None) -> LatentDiffusion:
    model = replace(toy_model(), codec=own or PatchCodec())
    return replace(model, preview=Preview("grey", small or Grey(), use))


def grey(pictures: Tensor) -> bool:
    return bool((pictures == pictures[..., :1, :, :]).all())


def test_a_film_of_which_glimpses_are_quick_is_the_film() -> None:
    stream = FILM.stream(with_grey("shown"))
    parts = list(stream)
    glimpses = [part.picture for part in parts if part.number is None]
    frames = [part.picture for part in parts if part.number is not None]
    assert len(glimpses) > 10 and grey(torch.stack(glimpses))
    assert not any(grey(frame) for frame in frames)
    plain = FILM.run(toy_model())
    assert torch.equal(pixels(stream.clip), pixels(plain))
    assert record(stream.clip) == record(plain)


def test_measured_by_it_a_film_shows_other_pictures_and_all_of_them_in_full() -> None:
    quick, plain = FILM.run(with_grey("measured")), FILM.run(toy_model())
    assert record(quick)["plan"] != record(plain)["plan"]
    assert record(quick)["model"]["preview_decoder"] == "grey"
    assert record(quick)["model"]["preview_for"] == "measured"
    again = FILM.run(toy_model(), plan=TransitionPlan(**record(quick)["plan"]))
    assert torch.equal(pixels(again), pixels(quick)), "only what is shown was chosen by it"
    assert record(again)["scores"] == record(quick)["scores"], "what is said of a film is measured on its own frames"


def test_what_only_measures_is_not_decoded_in_full() -> None:
    own, small = Counting(), Grey()
    clip = FILM.run(with_grey("measured", own, small))
    _ = levels_of(clip.frames, slice(0, len(clip)))
    nodes = record(clip)["plan"]["nodes"]
    shown = {shot[0] for shot in record(clip)["plan"]["shots"]}
    assert own.decoded == len(shown) < len(nodes)
    assert small.decoded == record(clip)["plan"]["grown"]


@pytest.mark.parametrize("tree", [Branching(smoothness=0.01, max_branches=20), Branching(ghosting=0.05)])
def test_what_is_promised_of_a_film_is_measured_on_its_frames(tree: Branching) -> None:
    """Its largest step and its ghosting are not those of a sketch."""
    own = Counting()
    clip = replace(FILM, tree=tree).run(with_grey("measured", own))
    again = replace(FILM, tree=tree).run(toy_model(), plan=TransitionPlan(**record(clip)["plan"]))
    assert record(again)["scores"]["largest_step"] == record(clip)["scores"]["largest_step"]
    assert own.decoded >= len(record(clip)["plan"]["shots"])


def test_depths_are_chosen_by_quick_pictures_only_if_it_measures() -> None:
    task = replace(FILM, tree=Branching(depth="auto"))
    greys = {use: Grey() for use in ("shown", "measured")}
    owns = {use: Counting() for use in greys}
    for use in greys:
        clip = task.run(with_grey("measured" if use == "measured" else "shown", owns[use], greys[use]))
        _ = levels_of(clip.frames, slice(0, len(clip)))
    assert greys["shown"].decoded == 0
    assert owns["measured"].decoded < owns["shown"].decoded - 10
    assert greys["measured"].decoded > 10


def test_all_frames_by_it_are_grey() -> None:
    model = with_grey("frames")
    clip = FILM.run(replace(model, codec=QuickCodec(PatchCodec(), Grey())))
    assert grey(pixels(clip))


def test_a_live_stream_is_looked_at_by_it_and_its_film_is_not() -> None:
    own, small = Counting(), Grey()
    stream = LIVE.start(with_grey("shown", own, small))
    with pytest.raises(ValueError, match="no picture has come"):
        _ = stream.developed
    pictures, developed = list[Tensor](), list[Tensor]()
    for picture in stream:
        pictures.append(picture)
        if len(pictures) % 2:
            developed.append(stream.developed)
    assert grey(torch.stack(pictures)) and small.decoded == len(pictures)
    assert own.decoded == len(developed), "what nobody keeps is decoded once, and quickly"
    plain = list(LIVE.start(toy_model()))
    assert torch.equal(torch.stack(developed), torch.stack(plain[::2]))
    assert torch.equal(pixels(stream.replay.run(with_grey("shown"))), torch.stack(plain))


def test_the_first_picture_of_a_stream_is_seen_on_its_way() -> None:
    looks = list[Tensor]()
    stream = LIVE.start(with_grey("shown"))
    stream.first_look = looks.append
    first = next(stream)
    assert len(looks) == toy_model().defaults.steps - 1
    away = [float((look - first).abs().mean()) for look in looks]
    assert away[-1] < 0.5 * away[0], "ever nearer to what comes"
    shown = [first, *stream]
    assert len(looks) == toy_model().defaults.steps - 1, "and no more once there are pictures"
    assert torch.equal(torch.stack(shown), torch.stack(list(LIVE.start(with_grey("shown")))))
    own = LIVE.start(toy_model())
    own.first_look = lambda _: pytest.fail("the model's own decoder would hold up the first picture")
    next(own)


def test_without_one_the_last_picture_is_not_decoded_again() -> None:
    own = Counting()
    stream = LIVE.start(replace(toy_model(), codec=own))
    assert all(stream.developed is picture for picture in stream)
    assert own.decoded == LIVE.frames
