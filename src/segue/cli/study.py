"""`segue study`: which of several films of the same thing do people prefer?"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segue.cli.fields import verb
from segue.errors import TaskError

if TYPE_CHECKING:
    from segue.evaluation.study_answers import Result

PAGE = "study.html"


@dataclass(frozen=True)
class Studying:
    """What to compare, or to count.

    Args:
        sources: a folder of films, FILM/METHOD.mp4, of which a page is made; with --answers, the keys that were written
            beside the pages, study.key.json.
        output: the page to write; study.html, if left out. Who made what is written beside it.
        seed: of the order of the pairs, and of who stands on the left, for the same page again; left out, one is drawn,
            as raters who know it could find out who is who.
        pairs: how many are shown, besides those that are shown twice; all, if left out.
        answers: files that raters saved; counted instead of making a page.
        keep_all: count those raters, too, who seem not to have looked.
        json: print one JSON object instead of text.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    sources: tuple[Path, ...]
    output: Path | None = None
    seed: int | None = None
    pairs: int | None = None
    answers: tuple[Path, ...] = ()
    keep_all: bool = False
    json: bool = False


@verb
def study(studying: Studying) -> int:
    """Make a blind page of films for people to judge, or count what they said: segue study films -o study.html"""
    return _counted(studying) if studying.answers else _made(studying)


def _made(studying: Studying) -> int:
    from segue.cli.progress import Meter
    from segue.evaluation.study import find_films
    from segue.evaluation.study_page import write_page

    if len(studying.sources) != 1:
        raise TaskError(
            f"expected one folder of films, FILM/METHOD.mp4; got {len(studying.sources)}; see segue study --help"
        )
    if studying.keep_all:
        raise TaskError("--keep-all is about raters: give their --answers")
    path = studying.output or Path(PAGE)
    with Meter() as meter:
        films = find_films(studying.sources[0])
        key_path, key = write_page(films, path, seed=studying.seed, most=studying.pairs, progress=meter)
    repeated = sum(trial.repeats is not None for trial in key.trials)
    if studying.json:
        said = {"page": str(path), "key": str(key_path), "id": key.id, "pairs": len(key.trials) - repeated}
        print(json.dumps({**said, "repeated": repeated, "methods": key.methods, "films": key.films}))
        return 0
    print(
        f"{path}: {len(key.trials) - repeated} pairs of {len(key.methods)} methods and {len(key.films)} films, and "
        f"{repeated} once more\n{key_path}: who is who; keep it from raters, and count their answers with it:\n"
        f"segue study {key_path} --answers answers-*.json"
    )
    return 0


def _counted(studying: Studying) -> int:
    from segue.evaluation.study import read_key
    from segue.evaluation.study_answers import as_dict, read_answers, result

    given = (("--output", studying.output), ("--pairs", studying.pairs), ("--seed", studying.seed))
    if wrong := [name for name, value in given if value is not None]:
        raise TaskError(f"{wrong[0]} is for making a page, and --answers counts what raters of one said")
    if not studying.sources:
        raise TaskError("expected the key of the page, such as study.key.json; see segue study --help")
    keys = [read_key(path) for path in studying.sources]
    found = result([read_answers(path, keys) for path in studying.answers], keys, keep_all=studying.keep_all)
    print(json.dumps(as_dict(found), allow_nan=False) if studying.json else told(found))
    return 0


def told(found: Result) -> str:
    """The strongest first, question by question; then what there is to say of the raters."""
    lines: list[str] = []
    widest = max(len(method) for method in found.methods)
    for question, one in found.rankings.items():
        left, tie, right = found.counts[question]
        lines += [f"{question}: {left + tie + right} answers of {one.raters} raters, {tie} of them no difference"]
        lines += [f"{'':{widest}}  preferred            log-odds"]
        for i in sorted(range(len(found.methods)), key=lambda i: -one.strengths[i].value):
            share, strength, below = one.shares[i], one.strengths[i], one.against_best[i]
            sure = "" if below.value == 0 else ", below the best" if below.sign < 0 else ", not told from the best"
            shown = f"{100 * share.value:5.1f} % {_half(100 * share.half, 1):8}"
            lines.append(
                f"{found.methods[i]:{widest}}  {shown}  {strength.value:+6.2f} {_half(strength.half, 2)}{sure}"
            )
        bias = "so that the side matters" if one.side.sign else "so that no side is seen to matter"
        lines += [f"log-odds for standing on the left: {one.side.value:+.2f} {_half(one.side.half, 2)}, {bias}", ""]
    for rater in found.raters:
        if rater.doubts:
            what = "left out" if rater.name in found.left_out else "counted"
            lines.append(f"rater {rater.name} is {what}: {rater.doubts}")
    lines.append("± are 95 % intervals over raters (bootstrap); preferred: against the others, a tie counting half.")
    return "\n".join(lines)


def _half(half: float, places: int) -> str:
    return "" if math.isnan(half) else f"± {half:.{places}f}"
