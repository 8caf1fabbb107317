"""A blind comparison of films by people: which pairs are shown, in which order, and who is who."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from segue.errors import RecordError, TaskError
from segue.media.clip import Clip
from segue.media.disk import written_whole
from segue.media.reader import read

SOURCE, PROMPT = "source", "prompt.txt"
"""Beside the methods' films: what they were made from, and a text of what they should show."""
QUESTIONS = {
    "consistency": "In which one do things keep their look better from frame to frame, without flicker?",
    "text": "Which one shows this better?",
    "looks": "Which one looks better?",
}
"""What is asked of each pair; "text" is left out where a film has no prompt."""
REPEATED = 8
"""One pair in so many is shown once more, sides swapped, to see whether a rater agrees with themselves."""
LONGEST_PROMPT = 2000
KEY = "segue study key, version 1"


@dataclass(frozen=True)
class Film:
    """One film as several methods made it.

    Args:
        name: of its folder.
        prompt: what it should show; "" if that is not known.
        source: what it was made from, if that is there.
        methods: the films, by the name of the method.
    """

    name: str
    prompt: str
    source: Path | None
    methods: dict[str, Path]


@dataclass(frozen=True)
class Trial:
    """Two films that are shown beside each other.

    Args:
        film: its number.
        left, right: numbers of methods.
        repeats: the number of the trial of which this is the same, with sides swapped; None for a new one.
    """

    film: int
    left: int
    right: int
    repeats: int | None = None


@dataclass(frozen=True)
class Key:
    """Who is who on a page. It is not to be given to raters.

    Args:
        id: of the page, which answers name.
        seed: of order and sides.
        films: names.
        asked: of each film, which questions.
        methods: names.
        trials: in the order in which they are shown.
        seconds: how long the longest film is.
    """

    id: str
    seed: int
    films: tuple[str, ...]
    asked: tuple[tuple[str, ...], ...]
    methods: tuple[str, ...]
    trials: tuple[Trial, ...]
    seconds: float

    def to_json(self) -> str:
        """As a file holds it."""
        return json.dumps({"about": KEY, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with written_whole(path) as part:
            part.write_text(self.to_json(), encoding="utf-8")


def read_key(path: Path) -> Key:
    """The key of a page.

    Raises:
        RecordError: it cannot be read, or is none.
    """
    try:
        said: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecordError(f"{path} cannot be read: {reason}; expected the .key.json beside a page") from None
    try:
        if said.pop("about") != KEY:
            raise ValueError("another version")
        trials = tuple(Trial(**trial) for trial in said.pop("trials"))
        films, methods = tuple(said.pop("films")), tuple(said.pop("methods"))
        if not (isinstance(said["id"], str) and len(said["asked"]) == len(films)):
            raise ValueError("no name, or not what was asked of each film")
        key = Key(films=films, methods=methods, asked=tuple(map(tuple, said.pop("asked"))), trials=trials, **said)
        for trial in trials:
            fits = trial.film in range(len(films)) and {trial.left, trial.right} <= {*range(len(methods))}
            if not fits or (trial.repeats is not None and trial.repeats not in range(len(trials))):
                raise ValueError(f"no such trial: {trial}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path} is no key of a page ({error}); expected the .key.json beside one") from None
    return key


def find_films(folder: Path) -> list[Film]:
    """The films of FOLDER/FILM/METHOD.mp4, or of whatever else `segue.read` reads.

    FILM/source.mp4 is shown above the films if it is there, and FILM/prompt.txt says what they should show.

    Raises:
        TaskError: there are no two methods that made the same film.
    """
    if not folder.is_dir():
        raise TaskError(f"expected a folder of films, FILM/METHOD.mp4; there is no folder {folder}")
    films: list[Film] = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"):
        there = sorted(path for path in place.iterdir() if path.name[0] not in "._" and path.suffix != ".json")
        films_there = [path for path in there if path.name != PROMPT]
        methods = {_named(path): path for path in films_there}
        if len(methods) < len(films_there):
            raise TaskError(f"two films in {place} have one name but for what follows the dot; give each its own")
        source = methods.pop(SOURCE, None)
        films.append(Film(place.name, _prompt(place / PROMPT), source, methods))
    films = [film for film in films if len(film.methods) > 1]
    if not films:
        raise TaskError(
            f"{folder} holds no films to compare: expected folders with two films or more, FILM/METHOD.mp4, such as "
            f"{folder}/wolf/ours.mp4 and {folder}/wolf/theirs.mp4"
        )
    return films


def _named(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _prompt(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        text = " ".join(path.read_text("utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} cannot be read as text ({error})") from None
    if len(text) > LONGEST_PROMPT:
        raise TaskError(f"{path} has {len(text)} characters; a prompt that is shown to people has {LONGEST_PROMPT}")
    return text


def read_alike(film: Film) -> tuple[dict[str, Clip], Clip | None]:
    """The clips of a film by method, and its source: all methods' of one size, rate and length.

    What differs in these would tell who made it.

    Raises:
        MediaError: one cannot be read.
        TaskError: they differ.
    """
    clips = {method: read(path) for method, path in film.methods.items()}
    kinds = {(clip.size, clip.fps, len(clip)): method for method, clip in clips.items()}
    if len(kinds) > 1:
        ((one, a), (other, b), *_) = kinds.items()
        told = [f"{name} has {len_} frames of {size[0]}x{size[1]} at {float(fps):.5g}" for (size, fps, len_), name in
                ((one, a), (other, b))]  # fmt: skip
        raise TaskError(f"the films of {film.name} must differ in nothing but who made them: {'; '.join(told)}")
    return clips, None if film.source is None else read(film.source)


def plan(films: Sequence[Film], seed: int, most: int | None = None) -> tuple[tuple[str, ...], tuple[Trial, ...]]:
    """The methods, and which pairs are shown: all there are, or `most` of them, so that all pairs of methods are alike.

    Order and sides are drawn from the seed; one pair in eight is shown once more, sides swapped, half a study later.

    Args:
        films: to be compared.
        seed: of order and sides.
        most: pairs that a rater is to be shown, besides those that are shown twice.

    Raises:
        TaskError: fewer than 1.
    """
    if most is not None and most < 1:
        raise TaskError(f"expected 1 pair or more to be shown, got {most}")
    rng = random.Random(seed)
    methods = sorted({method for film in films for method in film.methods})
    number = {method: i for i, method in enumerate(methods)}
    waiting: dict[tuple[int, int], list[int]] = {}
    for i, film in enumerate(films):
        for a, b in combinations(sorted(film.methods), 2):
            waiting.setdefault((number[a], number[b]), []).append(i)
    rounds: list[Trial] = []
    for pair in waiting:
        rng.shuffle(waiting[pair])
    flips = {pair: rng.random() < 0.5 for pair in waiting}
    while waiting:  # Each round has one film of every pair of methods, so that a part of them is even, too.
        pairs = list(waiting)
        rng.shuffle(pairs)
        for pair in pairs:
            left, right = pair[::-1] if flips[pair] else pair
            flips[pair] = not flips[pair]
            rounds.append(Trial(waiting[pair].pop(), left, right))
        waiting = {pair: left for pair, left in waiting.items() if left}
    chosen = rounds[:most]
    rng.shuffle(chosen)
    again = sorted(rng.sample(range((len(chosen) + 1) // 2), len(chosen) // REPEATED))
    repeats = [Trial(chosen[i].film, chosen[i].right, chosen[i].left, i) for i in again]
    return tuple(methods), (*chosen, *repeats)


def identity(parts: Sequence[bytes]) -> str:
    """A name for a page, of what it shows."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(hashlib.blake2b(part).digest())
    return digest.hexdigest()
