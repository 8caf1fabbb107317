"""Every field of a task is a flag, and arrives where it belongs."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

import pytest
from cyclopts import App, Parameter

from segue.cli.fields import Flag, described, flags, verb
from segue.cli.main import VERBS, main
from segue.cli.options import ModelChoice, Output, Recording, slug
from segue.cli.player import Playing
from segue.errors import TaskError
from segue.tasks.branching import Branching
from segue.tasks.image import Image
from segue.tasks.masks import Area
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition

# A value for every field, other than its default: by place, the flags that set it, and what must arrive.
TYPED: dict[str, tuple[str, Any]] = {
    "task.negative": ("--negative grey --negative blurry", ("grey", "blurry")),
    "task.seeds": ("--seed 7 --seed 9", (7, 9)),
    "task.seconds": ("--seconds 2.5", 2.5),
    "task.fps": ("--fps 25", 25.0),
    "task.fill": ("--fill blend", "blend"),
    "task.key_image": ("--key-image last=photo.png", ("last=photo.png",)),
    "task.weights": ("--weights 1,0;1,3;0,1", "1,0; 1,3; 0,1"),
    "task.likeness.structure": ("--structure 0.5", 0.5),
    "task.likeness.shared_noise": ("--shared-noise 0.5", 0.5),
    "task.likeness.shared_attention": ("--shared-attention 0.5", 0.5),
    "task.likeness.shared_statistics": ("--shared-statistics 0.5", 0.5),
    "task.likeness.interpolation": ("--interpolation 0.5", 0.5),
    "task.likeness.fusion": ("--fusion inner", "inner"),
    "task.likeness.words": ("--words line", "line"),
    "task.likeness.mix": ("--mix linear", "linear"),
    "task.pace.easing": ("--easing hold:0.1", "hold:0.1"),
    "task.pace.loop": ("--loop pingpong", "pingpong"),
    "task.pace.audio": ("--audio song.mp3", "song.mp3"),
    "task.area.mask": ("--mask where.png", "where.png"),
    "task.area.feather": ("--mask where.png --feather 4", 4.0),
    "task.area.timing": ("--timing when.png", "when.png"),
    "task.area.spread": ("--timing when.png --spread 0.3", 0.3),
    "task.sampling.steps": ("--steps 11", 11),
    "task.sampling.guidance_scale": ("--guidance 3 --guidance 4.5", (3.0, 4.5)),
    "task.sampling.guidance_start": ("--guidance-start 0.25", 0.25),
    "task.sampling.solver": ("--solver lcm", "lcm"),
    "task.sampling.size": ("--size 96x64", (96, 64)),
    "task.tree.depth": ("--depth 0.25", 0.25),
    "task.tree.crossfeed": ("--crossfeed 0.3 0.5 0.7", (0.3, 0.5, 0.7)),
    "task.tree.first_crossfeed": ("--first-crossfeed 0.1 0.2 0.3", (0.1, 0.2, 0.3)),
    "task.tree.damper": ("--damper 0.5", 0.5),
    "task.tree.branches": ("--branches 2 3 7 10 --at 0 3 6 9", (2, 3, 7, 10)),
    "task.tree.at": ("--branches 2 3 7 10 --at 0 3 6 9", (0, 3, 6, 9)),
    "task.tree.preset": ("--preset low", "low"),
    "task.tree.max_branches": ("--max-branches 5", 5),
    "task.tree.budget": ("--budget 12", 12.0),
    "task.tree.smoothness": ("--smoothness 0.05", 0.05),
    "task.tree.ghosting": ("--ghosting 0.3", 0.3),
    "task.tree.distance": ("--distance lpips-alex", "lpips-alex"),
    "execution.max_batch": ("--max-batch 4", 4),
    "execution.deterministic_batch": ("--deterministic-batch", True),
    "execution.threads": ("--threads 2", 2),
}


class Seen:
    """A command that only remembers what it was given."""

    task: Transition
    execution: Execution

    def __call__(self, line: list[str]) -> None:
        def capture(task: Transition, execution: Execution) -> int:
            self.task, self.execution = task, execution
            return 0

        app = App(exit_on_error=False, print_error=False, result_action="return_value")
        app.default(verb(capture))
        app(line)


def everything() -> list[Flag]:
    return [*flags(Transition, ("task",)), *flags(Execution, ("execution",))]


def test_every_field_has_an_example() -> None:
    optional = {".".join(flag.place) for flag in everything() if not flag.is_positional}
    assert optional == set(TYPED)


@pytest.mark.parametrize("place", TYPED)
def test_flag_arrives(place: str) -> None:
    typed, expected = TYPED[place]
    seen, plain = Seen(), Seen()
    seen(["a", "b", *typed.split()])
    plain(["a", "b"])
    value, default = (_at({"task": asdict(s.task), "execution": asdict(s.execution)}, place) for s in (seen, plain))
    assert value == expected
    assert default != expected


def whole_numbers() -> list[tuple[str, str]]:
    """By verb, the flags that take whole numbers, as they are typed."""
    found: list[tuple[str, str]] = []
    for name in VERBS:
        command = getattr(importlib.import_module(f"segue.cli.{name}"), name)
        for parameter in inspect.signature(command).parameters.values():
            kind = get_args(parameter.annotation)[0]
            if parameter.kind is parameter.KEYWORD_ONLY and kind in (int, int | None, tuple[int, ...]):
                found.append((name, f"--{parameter.name.replace('_', '-')}"))
    return found


def test_whole_numbers_are_found() -> None:
    found = set(whole_numbers())
    assert {("image", "--steps"), ("deflicker", "--window"), ("live", "--between"), ("rerun", "--crf")} <= found
    assert {("evaluate", "--seam"), ("transition", "--seed"), ("transition", "--branches")} <= found


@pytest.mark.parametrize(("name", "flag"), whole_numbers())
def test_whole_numbers_are_never_rounded(name: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    for typed in ("2.5", "5.0", "1e3", "0x10", "1_000", "x"):
        assert main([name, "a", flag, typed]) == 2
        said = f'for {flag}: expected a whole number in digits, such as 5; got "{typed}"; see segue {name} --help'
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "arrived"), [("5", 5), ("+5", 5), ("-5", -5), ("007", 7), (" 12 ", 12)])
def test_whole_numbers_arrive(typed: str, arrived: int) -> None:
    @dataclass(frozen=True)
    class Numbers:
        """Of all kinds.

        Args:
            one: of them.
            some: of them.
            branches: in one go.
        """

        one: int | None = None
        some: tuple[int, ...] = ()
        branches: tuple[int, ...] = ()

    seen: list[Numbers] = []

    def capture(numbers: Numbers) -> int:
        seen.append(numbers)
        return 0

    capture.__annotations__ = {"numbers": Numbers, "return": int}
    app = App(exit_on_error=False, print_error=False, result_action="return_value")
    app.default(verb(capture))
    app(["--one", typed, "--some", typed, "--some", "3", "--branches", typed, "4"])
    assert seen == [Numbers(arrived, (arrived, 3), (arrived, 4))]


@pytest.mark.parametrize(
    "kind", [Image, Transition, Sampling, Branching, Area, Execution, ModelChoice, Output, Recording, Playing]
)
def test_every_field_is_explained(kind: type[Any]) -> None:
    assert described(kind).keys() == {field.name for field in fields(kind)}
    assert all(flag.help for flag in flags(kind, ()))


def test_prompts_come_before_between_and_after_flags() -> None:
    seen = Seen()
    seen(["a cat", "--seed", "3", "a dog", "--fps", "10", "a fox"])
    assert seen.task.prompts == ("a cat", "a dog", "a fox")


def test_configuration_file_is_overridden_by_flags(tmp_path: Any) -> None:
    file = tmp_path / "film.toml"
    text = 'prompts = ["a", "b"]\nseconds = 2\n[tree]\ndepth = 0.5\ndamper = 0.9\n[execution]\nmax_batch = 3\n'
    file.write_text(text, encoding="utf-8")
    seen = Seen()
    seen(["--config", str(file), "--depth", "0.1"])
    assert seen.task == Transition(("a", "b"), seconds=2, tree=Branching(depth=0.1, damper=0.9))
    assert seen.execution == Execution(max_batch=3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("promts = ['a', 'b']", "there is no field promts"),
        ("[sampling]\nstep = 3", "there is no field sampling.step"),
        ("seconds = 'long'", "seconds"),
        ("seconds = -1", "seconds must be above 0"),
        ("tree = 3", "tree: Input should be a dictionary"),
        ("execution = 3", "execution: Input should be a dictionary"),
        ("[execution]\nbatch = 3", "there is no field batch; the fields are max_batch, "),
        ("seconds = ", "expected a TOML file"),
    ],
)
def test_configuration_file_is_checked(text: str, said: str, tmp_path: Any) -> None:
    file = tmp_path / "film.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=said):
        Seen()(["a", "b", "--config", str(file)])


def test_two_fields_cannot_share_a_flag() -> None:
    def twice(task: Image, other: Sampling) -> int:
        return 0

    with pytest.raises(ValueError, match="share a flag"):
        verb(twice)


def test_help_of_a_parameter_is_its_docstring() -> None:
    parameter = next(flag for flag in everything() if flag.name == "damper").parameter()
    about = parameter.annotation.__metadata__[0]
    assert isinstance(about, Parameter)
    assert about.help == described(Branching)["damper"]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a red apple", "a-red-apple"),
        ("a (red:1.3) apple, ripe!", "a-red-apple-ripe"),
        ("../../etc/passwd", "etc-passwd"),
        ("…", "picture"),
        ("ein Käse", "ein-käse"),
        ("word " * 30, "word-word-word-word-word-word-word-word"),
    ],
)
def test_slug(prompt: str, name: str) -> None:
    assert slug(prompt) == name


def _at(values: Any, place: str) -> Any:
    for part in place.split("."):
        values = values[part]
    return values
