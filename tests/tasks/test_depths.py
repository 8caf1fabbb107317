"""Depths that are chosen by previews: by what, at what cost, and that a film with them repeats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segue.errors import InterruptedRunError, TaskError
from segue.media.clip import Clip, TensorFrames
from segue.tasks.branching import Branching
from segue.tasks.depths import Seen, best, candidates, motion
from segue.tasks.likeness import Likeness
from segue.tasks.masks import Area
from segue.tasks.pace import Pace
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from segue.tasks.transition_plan import TransitionPlan
from segue.temporal.preview import stride_of
from shown import pixels, record
from toy import toy_model

AUTO = Transition(
    ("one", "two", "three"), seconds=1.0, fps=20, seeds=(1, 2, 3), tree=Branching(depth="auto"), sampling=Sampling(20)
)


def test_least_ghosting_within_the_limit_and_else_least_motion() -> None:
    calm, clear, wild = Seen(8, 0.03, 0.02), Seen(6, 0.02, 0.04), Seen(4, 0.01, 0.06)
    assert best([wild, clear, calm], 0.05) is clear
    assert best([wild, clear, calm], 0.1) is wild
    assert best([wild, clear, calm], 0.01) is calm


def test_what_differs_by_rounding_is_equal_and_the_calmer_wins() -> None:
    early, late = Seen(4, 0.0201, 0.03), Seen(8, 0.0204, 0.02)
    assert best([early, late], 0.05) is late
    assert best([Seen(4, 0.02, 0.03), Seen(8, 0.02, 0.03)], 0.05).step == 8


@pytest.mark.parametrize("steps", [2, 3, 4, 8, 20, 30, 50])
def test_candidates_are_steps_of_previews_inside_the_run(steps: int) -> None:
    found = candidates(steps)
    assert found == sorted(set(found))
    assert all(0 < step < steps and step % stride_of(steps) == 0 for step in found)
    assert min(steps - 1, 2) <= len(found) <= 5
    assert steps != 20 or found == [4, 6, 8, 10, 12]


def test_motion_is_that_of_a_picture_that_is_moved() -> None:
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(noise, size=(64, 64), mode="bicubic").clamp(0, 1)
    moved = picture.roll(4, dims=3)
    assert float(motion(picture, picture)) == 0
    assert float(motion(picture, moved)) == pytest.approx(4 / 64, rel=0.3)
    assert float(motion(picture[..., :8, :8], picture[..., 8:16, :8])) >= 0


def test_a_depth_for_every_two_keys_and_what_it_took() -> None:
    clip = AUTO.run(toy_model())
    plan, scores = record(clip)["plan"], record(clip)["scores"]
    assert scores["depths"] == plan["depths"]
    assert len(plan["depths"]) == 2
    assert all(round(depth * 20) in candidates(20) for depth in plan["depths"])
    first = {int(node[0]): node[1] for node in plan["nodes"] if node[6] == 1}
    assert first == {pair: round(depth * 20) for pair, depth in enumerate(plan["depths"])}
    # Two pairs, five previews of each on ten steps, guided.
    assert scores["preview_rows"] == 2 * 2 * (8 + 7 + 6 + 5 + 4)
    assert scores["preview_calls"] == 30
    assert "by previews, which took 120 rows" in scores["ended"]
    fixed = record(replace(AUTO, tree=Branching()).run(toy_model()))["scores"]
    assert {"depths", "preview_rows"}.isdisjoint(fixed)
    assert scores["rows"] > scores["preview_rows"] > 0


def test_the_limit_is_what_decides() -> None:
    loose, tight = (
        record(replace(AUTO, seeds=(3, 4, 7), tree=Branching(depth=f"auto:{limit}")).run(toy_model()))["plan"]["depths"]
        for limit in (1000, 1e-9)
    )
    assert loose != tight


def test_it_does_not_depend_on_the_size_of_batches() -> None:
    plans = [record(AUTO.run(toy_model(), Execution(max_batch=size)))["plan"] for size in (1, 64)]
    assert plans[0].pop("preview_calls") > plans[1].pop("preview_calls")
    assert plans[0] == plans[1]


def test_a_rerun_needs_no_previews_and_is_the_same_film(tmp_path: Path) -> None:
    seen: set[str] = set()

    def progress(what: str, done: float, total: float) -> None:
        assert 0 <= done <= total
        seen.add(what)

    clip = AUTO.run(toy_model(), progress=progress)
    assert "previewing depths" in seen
    clip.save(tmp_path / "film.mp4")
    seen.clear()
    again = Rerun.read(tmp_path / "film.json").run(toy_model(), progress=progress)
    assert "previewing depths" not in seen
    assert torch.equal(pixels(again), pixels(clip))
    assert record(again) == record(clip)


def test_plans_of_before_are_still_read() -> None:
    plan = record(replace(AUTO, tree=Branching()).run(toy_model()))["plan"]
    for name in ("depths", "preview_calls", "preview_rows"):
        del plan[name]
    assert TransitionPlan(**plan).depths == []


@pytest.mark.parametrize("what", ["loop", "pingpong", "picture", "mask", "timing", "aligned", "crossfeed", "ghosting"])
def test_it_goes_with_everything_that_films_can_be_asked_for(what: str, tmp_path: Path) -> None:
    levels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    levels[..., 8:] = 255
    Clip(TensorFrames(levels), 1).save(tmp_path / "half.png")
    half = str(tmp_path / "half.png")
    changes: dict[str, dict[str, Any]] = {
        "loop": {"pace": Pace(loop="loop")},
        "pingpong": {"pace": Pace(loop="pingpong")},
        "picture": {"key_image": (f"2={half}",)},
        "mask": {"area": Area(mask=half, feather=0)},
        "timing": {"area": Area(timing=half)},
        "aligned": {"likeness": Likeness(shared_noise=0.5, shared_statistics=0.5)},
        "crossfeed": {"tree": Branching(depth="auto", crossfeed=(0.3, 0.6, 0.9))},
        "ghosting": {"tree": Branching(depth="auto", ghosting=0.01, smoothness=0.05)},
    }
    task = replace(AUTO, **changes[what])
    clip = task.run(toy_model())
    assert len(record(clip)["plan"]["depths"]) == (3 if what == "loop" else 2)
    again = task.run(toy_model(), plan=TransitionPlan(**record(clip)["plan"]))
    assert torch.equal(pixels(again), pixels(clip))
    assert record(again)["scores"] == record(clip)["scores"]


def test_mixes_of_keys_have_depths_too() -> None:
    clip = replace(AUTO, weights="1,0,0; 1,1,1; 0,0,1").run(toy_model())
    assert len(record(clip)["plan"]["depths"]) == 2


def test_an_interruption_while_previews_run_keeps_the_keys() -> None:
    def stop(what: str, done: float, total: float) -> None:
        if what == "previewing depths":
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="3 pictures were finished"):
        AUTO.run(toy_model(), progress=stop)


def test_one_spelling() -> None:
    assert Branching(depth="auto:0.05").depth == Branching(depth=" auto ").depth == "auto"
    assert Branching(depth="auto:3e-2").depth == "auto:0.03"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"depth": "auto:"}, "widths of the picture above 0, such as auto:0.05"),
        ({"depth": "auto:-1"}, "widths of the picture above 0"),
        ({"depth": "automatic"}, "expected a number, or times and values"),
        ({"depth": "auto", "preset": "low"}, "a preset has one depth"),
        ({"depth": "auto", "branches": (2, 3), "at": (0, 3)}, "at says where the levels of a fixed tree begin"),
    ],
)
def test_what_has_no_depth_to_choose_is_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(TaskError, match=expected):
        Branching(**settings)
