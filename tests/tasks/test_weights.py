"""Films through mixes of three and more prompts: corners are the prompts' own pictures, and everything else holds."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Pillow

from segue.cli.produce import draw_tree
from segue.errors import InterruptedRunError, TaskError
from segue.media.clip import Clip, TensorFrames
from segue.models.bundle import LatentDiffusion
from segue.tasks.branching import Branching
from segue.tasks.likeness import Likeness
from segue.tasks.masks import Area
from segue.tasks.pace import Pace
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from segue.tasks.transition_plan import TransitionPlan
from shown import pixels
from toy import toy_model

PLAIN = Transition(("one", "two", "three"), seconds=1.0, fps=20, seeds=(1, 2, 3))
WAY = replace(PLAIN, weights="1,0,0; 1,1,1; 0,0,1")


def plan(clip: Clip) -> dict[str, Any]:
    assert clip.provenance is not None
    return clip.provenance.record["plan"]


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return toy_model()


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "euler_ancestral", "lcm"])
def test_points_that_are_prompts_are_these_prompts_to_the_last_bit(model: LatentDiffusion, solver: str) -> None:
    sampling = Sampling(solver=solver)
    one_by_one = replace(PLAIN, weights=((2, 0, 0), (0, 1, 0), (0, 0, 9)), sampling=sampling)
    film = pixels(replace(PLAIN, sampling=sampling).run(model))
    assert torch.equal(pixels(one_by_one.run(model)), film)
    by_way = pixels(replace(WAY, sampling=sampling).run(model))
    assert torch.equal(by_way[0], film[0])
    assert torch.equal(by_way[-1], film[-1])
    assert not torch.equal(by_way, film)


def test_two_prompts_by_weights_are_the_plain_film(model: LatentDiffusion) -> None:
    two = Transition(("one", "two"), seconds=0.5, fps=20, seeds=(1, 2))
    assert torch.equal(pixels(replace(two, weights="1,0; 0,1").run(model)), pixels(two.run(model)))


@pytest.mark.parametrize("solver", ["ddim", "euler_ancestral"])
def test_equal_weights_do_not_see_the_order(model: LatentDiffusion, solver: str) -> None:
    middles: list[torch.Tensor] = []
    prompts, seeds, scales = PLAIN.prompts, PLAIN.seeds, (2.0, 3.0, 4.0)
    for order in permutations(range(3)):
        film = replace(
            WAY,
            prompts=tuple(prompts[key] for key in order),
            seeds=tuple(seeds[key] for key in order),
            sampling=Sampling(solver=solver, guidance_scale=tuple(scales[key] for key in order)),
            weights="1,1,1; 1,0,0; 0,1,1",
        )
        middles.append(pixels(film.run(model))[0])
    assert all(torch.allclose(found, middles[0], atol=1e-5) for found in middles)


def test_speed_is_even_through_a_mix(model: LatentDiffusion) -> None:
    film = pixels(WAY.run(model))
    steps = (film[1:] - film[:-1]).square().mean((1, 2, 3)).sqrt()
    assert float(steps.max()) < 1.5 * float(steps.mean())


@pytest.mark.parametrize("loop", ["loop", "pingpong"])
def test_loops_have_no_seam(model: LatentDiffusion, loop: Any) -> None:
    film = pixels(replace(WAY, pace=Pace(loop=loop)).run(model))
    steps = (film.roll(-1, 0) - film).square().mean((1, 2, 3)).sqrt()
    assert len(film) == 20
    assert float(steps[-1]) < 1.5 * float(steps.mean())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pace": Pace(loop="loop")},
        {"tree": Branching(branches=(2, 3, 5), at=(0, 3, 6))},
        {"tree": Branching(depth="0s:0.2, 1s:0.6", damper=0.7)},
        {"tree": Branching(depth="auto")},
        {"tree": Branching(crossfeed=(0.4, 0.6, 0.9), first_crossfeed=(0.3, 0.6, 0.9))},
        {"tree": Branching(ghosting=0.01, smoothness=0.03)},
        {"likeness": Likeness(shared_noise=0.5, shared_statistics=0.5, mix="linear")},
        {"sampling": Sampling(guidance_scale=("0s:2, 1s:4",), solver="euler_ancestral")},
        {"weights": "1,0,0; 1,1,1; 0,1,0; 2,2,2; 0,1,1; 0,0,1"},
    ],
)
def test_a_film_is_made_again_from_its_record(model: LatentDiffusion, changes: dict[str, Any], tmp_path: Path) -> None:
    film = replace(WAY, **changes).run(model)
    film.save(tmp_path / "film")
    again = Rerun.read(tmp_path / "film.json")
    assert isinstance(again.task, Transition)
    assert again.task.weights == replace(WAY, **changes).weights
    assert torch.equal(pixels(again.run(model)), pixels(film))


def test_batches_do_not_matter(model: LatentDiffusion) -> None:
    assert torch.equal(pixels(WAY.run(model)), pixels(WAY.run(model, Execution(max_batch=2))))


def test_a_photograph_may_be_one_of_the_keys(model: LatentDiffusion, tmp_path: Path) -> None:
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    photo = TensorFrames.rounded(noise)[0:1][0]
    path = tmp_path / "photo.png"
    Pillow.fromarray((photo * 255).round().byte().permute(1, 2, 0).numpy()).save(path)
    film = pixels(replace(WAY, key_image=(f"last={path}",)).run(model))
    assert torch.equal(film[-1], photo)
    inner = pixels(replace(WAY, key_image=(f"2={path}",)).run(model))
    plain = pixels(WAY.run(model))
    assert torch.equal(inner[0], plain[0]), "it has a share in the middle alone"
    assert float((inner[10] - plain[10]).abs().max()) > 0.01


@pytest.mark.parametrize("between", ["", "1,1,1; "])
def test_a_point_may_come_again(model: LatentDiffusion, tmp_path: Path, between: str) -> None:
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    photo = TensorFrames.rounded(noise)[0:1][0]
    path = tmp_path / "photo.png"
    Pillow.fromarray((photo * 255).round().byte().permute(1, 2, 0).numpy()).save(path)
    weights = f"1,0,0; 0,1,0; {between}1,0,0; 0,0,1"
    film = pixels(replace(PLAIN, weights=weights, key_image=(f"first={path}",)).run(model))
    shown = [bool(torch.equal(frame, photo)) for frame in film]
    assert shown[0]
    assert sum(shown) == 2


def test_the_drawing_names_every_point(model: LatentDiffusion, tmp_path: Path) -> None:
    for pace in (Pace(), Pace(loop="loop")):
        draw_tree(replace(WAY, pace=pace).run(model), tmp_path / "tree.svg")
        said = re.findall(r'fill="#333">([^<]+)<', (tmp_path / "tree.svg").read_text("utf-8"))
        ends = ["three", "one"] if pace.loop == "loop" else ["three"]
        assert [name.strip() for name in said] == ["one", "33% one + 33% two + 33%", *ends]


def test_interrupting_keeps_what_is_finished(model: LatentDiffusion) -> None:
    def stop(what: str, done: float, total: float) -> None:
        if what == "rendering frames" and done > 5:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="pictures were finished") as caught:
        WAY.run(model, progress=stop)
    assert caught.value.partial is not None

    def sooner(what: str, done: float, total: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="nothing to keep"):
        WAY.run(model, progress=sooner)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "1,0; 0,1"}, "one weight for each of the 3 prompts"),
        ({"weights": "1,0,0; 0,-1,0; 0,0,1"}, "weights of 0 and more"),
        ({"weights": "1,0,0; 0,0,0; 0,0,1"}, "a weight above 0"),
        ({"weights": "1,1,1"}, "two or more points"),
        ({"weights": "a path"}, "weights must be points"),
        ({"weights": "1,0,0; 0,0,1"}, "prompt 2 has no weight"),
        ({"weights": "1,0,0; 1,1,1; 1,0,0", "pace": Pace(loop="loop")}, "leave out the last one"),
        ({"weights": "1,1,1; 1,0,0", "likeness": Likeness(structure=0.5)}, "begin the weights with it"),
        ({"weights": "1,1,1; 1,0,0", "area": Area(mask="where.png")}, "begin the weights with it"),
        ({"weights": "1,0,0; 1,1,1; 0,0,1", "seconds": 0.1}, "3 key pictures need at least 3 frames"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        replace(PLAIN, **changes)


def test_a_plan_of_other_weights_is_refused(model: LatentDiffusion) -> None:
    found = TransitionPlan(**plan(WAY.run(model)))
    with pytest.raises(TaskError, match="does not belong to this task"):
        PLAIN.run(model, plan=found)


def test_tokens_are_mixed_by_the_same_rules_along_a_path(model: LatentDiffusion) -> None:
    """Points that are one prompt alone are told what they always are; others what the words say."""
    film, line = pixels(WAY.run(model)), pixels(replace(WAY, likeness=Likeness(words="line")).run(model))
    assert torch.equal(film[0], line[0])
    assert not torch.equal(film, line)
    plain = replace(PLAIN, likeness=Likeness(words="line"))
    by_points = replace(plain, weights="1,0,0; 0,1,0; 0,0,1")
    assert torch.equal(pixels(by_points.run(model)), pixels(plain.run(model)))
