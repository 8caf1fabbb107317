"""Every model that is on this machine: embedded, in the hub's cache, and the folder that SEGUE_MODEL names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segue.errors import ModelError, ModelNotFoundError
from segue.models.installed import INDEX, Facts, folder_facts, installed
from segue.zoo.cards import CARD, ModelCard, embedded, names, read_card
from segue.zoo.load import default


@dataclass(frozen=True)
class Entry:
    """A model on this machine.

    Args:
        name: what `segue.load` takes.
        origin: "embedded", "hub" or "folder".
        folder: where its files are.
        facts: what they say: family, size, licence, bytes.
        card: what its card says; None if it has none.
    """

    name: str
    origin: str
    folder: Path
    facts: Facts
    card: ModelCard | None = None

    @property
    def family(self) -> str:
        """What its layout is called, and what it is derived from."""
        if self.card and self.card.base:
            what = "LoRA of" if self.card.time is None else "layers along time for"
            return f"{self.facts.family}, {what} {self.card.base}"
        return f"{self.facts.family}, text of {self.card.text}" if self.card and self.card.text else self.facts.family

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) in pixels that it is made for, if that is known."""
        return self.card.size if self.card and self.card.size else self.facts.size

    @property
    def licence(self) -> str:
        """As its card, or its README, states it; "" if neither does."""
        return self.card.licence if self.card else self.facts.licence

    @property
    def concepts(self) -> int | None:
        """How many different things it can draw, if that is known."""
        return self.card.concepts if self.card else None

    @property
    def document(self) -> Path | None:
        """Where it is described at length, if it is."""
        files = (self.folder / "card.md", self.folder / "README.md")
        return next((path for path in files if path.is_file()), None)


@dataclass(frozen=True)
class Catalogue:
    """What was found.

    Args:
        entries: models, the embedded ones first.
        broken: what is wrong with those that could not be read, a line each.
    """

    entries: tuple[Entry, ...]
    broken: tuple[str, ...]

    def find(self, name: str) -> Entry:
        """A model by name, or by the path of its folder.

        Raises:
            ModelNotFoundError: there is none.
            ModelError: its card cannot be read.
        """
        found = [entry for entry in self.entries if entry.name == name]
        folder = Path(name).expanduser()
        if found:
            return found[0]
        if name in names():
            return _embedded(name)
        if _is_model(folder):
            return _of_folder(name, folder)
        there = ", ".join(entry.name for entry in self.entries) or "none"
        raise ModelNotFoundError(f'there is no model "{name}" on this machine (there are: {there})')


def catalogue() -> Catalogue:
    """Every model on this machine. One that cannot be read is told of, and hides no other."""
    entries: list[Entry] = []
    broken: list[str] = []
    for name in names():
        try:
            entries.append(_embedded(name))
        except ModelError as error:
            broken.append(str(error))
    chosen = Path(default()).expanduser()
    if default() not in names() and _is_model(chosen):
        try:
            entries.append(_of_folder(default(), chosen))
        except ModelError as error:
            broken.append(str(error))
    entries += [Entry(model.name, "hub", model.path, model.facts) for model in installed()]
    return Catalogue(tuple(entries), tuple(broken))


def _is_model(folder: Path) -> bool:
    """Whether a folder has weights, or a card, which may derive it from a model that has."""
    return (folder / INDEX).is_file() or (folder / CARD).is_file()


def _embedded(name: str) -> Entry:
    card = embedded(name)
    return Entry(name, "embedded", card.folder, _facts(card), card)


def _of_folder(name: str, folder: Path) -> Entry:
    card = read_card(folder) if (folder / CARD).is_file() else None
    return Entry(name, "folder", folder, _facts(card) if card else folder_facts(folder), card)


def _facts(card: ModelCard) -> Facts:
    """Of a derived model: its base's family, and its own bytes."""
    own = folder_facts(card.folder, card.words_from)
    if card.base is None:
        return own
    base = folder_facts(card.weights, card.words_from)
    return Facts(base.family, base.size, own.licence, own.bytes, base.problem)
