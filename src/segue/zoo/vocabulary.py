"""What a prompt asks for that a model was never shown, and what to say about it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Literal, Protocol

Phrase = tuple[str, ...]

_SMALL = "a an the of on in at to with and or from by for its it is are this that my your one single"
FILLERS = frozenset(_SMALL.split())
"""Words that a prompt may have anywhere: they ask for nothing."""

_SEVERAL = "two three four five six seven eight nine ten twelve dozen both several many pair couple"
COUNTS = frozenset(_SEVERAL.split())
ALIKE = 0.82
"""How like a known word must be (difflib's ratio) to be meant: "castel" is a castle, a "violin" is no lion."""

MOST = 6
"""So many words are named; of more, their number is said."""

_IRREGULAR = {
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "cacti": "cactus",
}


class Knowing(Protocol):
    """A model, or its card."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The things that it can draw, by all their names; empty if nobody knows."""
        ...

    @property
    def words(self) -> Mapping[str, tuple[str, ...]]:
        """What else it understands, by kind."""
        ...


@dataclass(frozen=True)
class Unknown:
    """Something in a prompt that a model was not trained on.

    Args:
        text: as the prompt has it, in lower case.
        kind: a "word", a "plural" of a thing that is known, or a "count".
        known: the thing of which it is the plural, or a known name that is spelt alike or has the word in it; "" if
            there is none.
    """

    text: str
    kind: Literal["word", "plural", "count"] = "word"
    known: str = ""


@dataclass(frozen=True)
class _Lexicon:
    """The names that are known, as sequences of plain words."""

    things: frozenset[Phrase]
    others: frozenset[Phrase]

    @staticmethod
    def of(card: Knowing) -> _Lexicon:
        others = (word for kind in card.words.values() for word in kind)
        return _Lexicon(frozenset(map(_plain, card.vocabulary)), frozenset(map(_plain, others)))

    @cached_property
    def longest(self) -> int:
        return max(map(len, self.things | self.others))

    @cached_property
    def single(self) -> list[str]:
        return sorted({word for phrase in self.things | self.others for word in phrase} - FILLERS)

    def first(self, words: Phrase) -> tuple[int, Unknown | None]:
        """How many words the first thing takes that is said here, and what is wrong with it."""
        for count in range(min(self.longest, len(words)), 0, -1):
            window = words[:count]
            if window in self.things or window in self.others:
                return count, None
            if one := next((phrase for phrase in _singular(window) if phrase in self.things), None):
                return count, self.plural(window, one)
        word = words[0]
        if word in FILLERS or word == "1":
            return 1, None
        if word in COUNTS or word.isdigit():
            return 1, Unknown(word, "count")
        described = any(words[1:end] in self.things for end in range(2, self.longest + 2))
        return 1, Unknown(word, "word", self.alike(word) if described else self.longer(word) or self.alike(word))

    def plural(self, window: Phrase, one: Phrase) -> Unknown:
        """Without the colour in front, where the thing is known without it too."""
        while len(window) > 1 and window[:1] in self.others and one[1:] in self.things:
            window, one = window[1:], one[1:]
        return Unknown(" ".join(window), "plural", " ".join(one))

    def longer(self, word: str) -> str:
        """A thing whose name has the word in it. In front of a thing ("happy dog") a word means no other thing."""
        names = [phrase for phrase in self.things if word in phrase]
        return " ".join(min(names, key=lambda phrase: (len(phrase), phrase))) if names else ""

    def alike(self, word: str) -> str:
        """Another known word that is spelt alike."""
        known = [other for other in self.single if other != word]
        spelt = (word, *_ones(word))
        found = (get_close_matches(form, known, n=1, cutoff=ALIKE) for form in spelt)
        return next((match[0] for match in found if match), "")


def unknown_words(prompt: str, card: Knowing) -> tuple[str, ...]:
    """The words of a prompt that a model was not trained on, in order; none if nobody said what it knows."""
    return tuple(found.text for found in unknown(prompt, card))


def unknown(prompt: str, card: Knowing) -> tuple[Unknown, ...]:
    """What a prompt asks for that a model was not trained on, in order; nothing if nobody said what it knows.

    Case, punctuation, hyphens, accents, articles and weights don't matter. The longest name that fits is taken: "cup of
    coffee" is one thing. A plural is not what was learned, and is said with its singular. A count is only told of where
    nothing else is: of "two violins", the violins are reason enough.

    Raises:
        TaskError: a weight of the prompt is out of range; see `segue.models.text.parse_weights`.
    """
    if not (card.vocabulary and card.words):
        return ()  # a list of things alone does not say which colours and places are understood
    from segue.models.text import parse_weights

    lexicon = _Lexicon.of(card)
    words = _plain("".join(text for text, _ in parse_weights(prompt)))
    found: list[Unknown] = []
    while words:
        count, fault = lexicon.first(words)
        words = words[count:]
        if fault is not None and fault not in found:
            found.append(fault)
    return tuple(fault for fault in found if fault.kind != "count") or tuple(found)


def remarks(prompts: Iterable[str], card: Knowing, name: str) -> tuple[str, ...]:
    """What to say before a model draws prompts with words that it does not know: one line, or nothing.

    Args:
        prompts: all of them; a word is named once.
        card: the model, or its card.
        name: that the model is found by.

    Raises:
        TaskError: see `unknown`.
    """
    found = list(dict.fromkeys(fault for prompt in prompts for fault in unknown(prompt, card)))
    if not found:
        return ()
    said: list[str] = []
    if words := [fault for fault in found if fault.kind == "word"]:
        said.append(f"does not know {_listed(words)}")
    if several := [fault for fault in found if fault.kind != "word"]:
        said.append(f"draws one thing at a time, not {_listed(several)}")
    advice = f"`segue models {name}` lists what it knows, --model takes a larger model"
    return (f"the model {name} {', and '.join(said)}; {advice}",)


def _listed(faults: Sequence[Unknown]) -> str:
    parts = [_quoted(fault) for fault in faults[:MOST]]
    if len(faults) > MOST:
        parts.append(f"{len(faults) - MOST} more")
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _quoted(fault: Unknown) -> str:
    if not fault.known:
        return f'"{fault.text}"'
    if fault.kind == "plural":
        return f'"{fault.text}" (ask for "{fault.known}")'
    return f'"{fault.text}" (did you mean "{fault.known}"?)'


def _plain(text: str) -> Phrase:
    """Words (and emoji) in lower case, without accents, possessives, hyphens and punctuation."""
    bare = "".join(mark for mark in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(mark))
    whole = re.sub(r"['’]s\b", "", bare)
    return tuple(re.findall(r"[^\W_]+|[\u2600-\u27bf\U0001f000-\U0001faff]", whole))


def _singular(window: Phrase) -> Iterator[Phrase]:
    """The same words with one of them in the singular: palm trees, cups of coffee."""
    for place in reversed(range(len(window))):
        for one in _ones(window[place]):
            yield (*window[:place], one, *window[place + 1 :])


def _ones(word: str) -> Iterator[str]:
    """What a word may be the plural of."""
    if word in _IRREGULAR:
        yield _IRREGULAR[word]
    for ending, singular in (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", "")):
        if word.endswith(ending) and not word.endswith("ss") and len(word) > len(ending) + 1:
            yield word.removesuffix(ending) + singular
