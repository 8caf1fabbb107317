"""`segue models`: what is on this machine, what it can draw, and what can be fetched to judge it with."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from segue.cli.fields import verb
from segue.errors import TaskError
from segue.models import perceptual
from segue.models.perceptual.archives import archive_of
from segue.zoo.catalogue import Entry, catalogue
from segue.zoo.controls import ControlCard, controls
from segue.zoo.load import default

MOST_COLUMNS = 100
BROKEN = 1
ORIGINS = {
    "embedded": "These models come with Segue:",
    "folder": "SEGUE_MODEL names this one:",
    "hub": "These are in the cache of the hub:",
}
CONTROLS = "Control adapters, which their models take by themselves; segue stylize --control KIND:"
NETWORKS = "Perceptual networks, which judge pictures and train codecs; segue models --fetch NAME downloads one:"


@dataclass(frozen=True)
class Listing:
    """What to say, and how.

    Args:
        models: names of models to say everything about; without any, all models are listed.
        fetch: download the weights of a perceptual network once, such as lpips-alex, or take them from its archive
            that was copied here by hand; may be repeated.
        json: print one JSON object instead of text.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    models: tuple[str, ...]
    fetch: tuple[str, ...] = ()
    json: bool = False


@verb
def models(listing: Listing) -> int:
    """List the models on this machine, or say what one of them knows: segue models emoji"""
    if listing.fetch:
        return _fetched(listing)
    found = catalogue()
    chosen = tuple(found.find(name) for name in listing.models) or found.entries
    if listing.json:
        said: dict[str, Any] = {"models": [as_dict(entry) for entry in chosen]}
        if not listing.models:
            said["perceptual"] = [weights_as_dict(name) for name in perceptual.names()]
        print(json.dumps(said))
    elif listing.models:
        print("\n\n".join(described(entry) for entry in chosen))
    else:
        print(overview(chosen))
    if listing.models:
        return 0
    for fault in found.broken:
        print(f"segue: error: {fault}", file=sys.stderr)
    return BROKEN if found.broken else 0


def _fetched(listing: Listing) -> int:
    """Weights that were asked for, brought here; where they lie is printed."""
    from segue.cli.progress import Meter

    if listing.models:
        raise TaskError(
            f"--fetch takes one name and is repeated for more, and no model is described beside it; got "
            f"{' '.join(listing.models)}"
        )
    there: list[str] = []
    with Meter() as progress:
        for name in listing.fetch:
            path = Path(name).expanduser()
            if name not in perceptual.names() and path.is_file():
                there += perceptual.convert(path)
            else:
                perceptual.fetch(name, progress)
                there.append(name)
    if listing.json:
        print(json.dumps({"perceptual": [weights_as_dict(name) for name in there]}))
    else:
        print("\n".join(str(perceptual.weights_path(name)) for name in there))
    return 0


def weights_as_dict(name: str) -> dict[str, Any]:
    """Weights of a perceptual network, for machines; bytes are None where they are not here."""
    path, archive = perceptual.weights_path(name), archive_of(name)
    here = perceptual.is_here(name)
    about = {"name": name, "here": here, "path": str(path), "bytes": path.stat().st_size if here else None}
    return {**about, "licence": archive.licence, "archive": archive.filename, "megabytes": archive.megabytes}


def as_dict(entry: Entry) -> dict[str, Any]:
    """For machines."""
    card = entry.card
    keys = ("summary", "base", "text", "factor", "steps", "guidance_scale", "guidance_start", "solver", "noise_level")
    return {
        "name": entry.name,
        "origin": entry.origin,
        "default": entry.name == default(),
        "family": entry.family,
        "size": entry.size,
        "licence": entry.licence,
        "bytes": entry.facts.bytes,
        "concepts": entry.concepts,
        "problem": entry.facts.problem,
        "folder": str(entry.folder),
        "document": str(entry.document) if entry.document else None,
        **{key: getattr(card, key) if card else None for key in (*keys, "picture_scale", "vocabulary", "words")},
    }


def overview(entries: tuple[Entry, ...]) -> str:
    """Each model in a few lines, by where it came from."""
    parts: list[str] = []
    for origin, title in ORIGINS.items():
        those = [entry for entry in entries if entry.origin == origin]
        if those:
            parts += [title, *(_brief(entry) for entry in those)]
    if not any(entry.origin == "embedded" for entry in entries):
        parts.append("no model comes with this installation")
    if adapters := controls():
        parts.append("\n".join([_wrapped(CONTROLS), *map(_adapter, adapters)]))
    parts.append("\n".join([_wrapped(NETWORKS), *map(_network, perceptual.names())]))
    hint = "segue models NAME says more of one. --model also takes a folder, a .safetensors file, or any hub id."
    return "\n\n".join([*parts, _wrapped(hint)])


def described(entry: Entry) -> str:
    """All that is known of a model."""
    card = entry.card
    rows = {
        "family": entry.family,
        "enlarges": _enlarges(entry).removeprefix("enlarges "),
        "resolution": _pixels(entry),
        "defaults": _defaults(entry),
        "concepts": _known(entry),
        "licence": entry.licence or "not stated here",
        "on disk": f"{_bytes(entry.facts.bytes)} in {entry.folder}",
        "but": entry.facts.problem,
        "card": str(entry.document or ""),
        **({kind: ", ".join(words) for kind, words in card.words.items()} if card else {}),
        "knows": ", ".join(card.vocabulary) if card else "",
    }
    width = max(len(label) for label in rows) + 2
    lines = [_wrapped(f"  {label:{width}}{text}", " " * (width + 2)) for label, text in rows.items() if text]
    summary = [_wrapped(f"  {card.summary}", "  ")] if card else []
    return "\n".join([_title(entry), *summary, *lines])


def _brief(entry: Entry) -> str:
    size = _bytes(entry.facts.bytes)
    told = (_enlarges(entry), _pixels(entry), _known(entry))
    facts = (entry.family, entry.facts.problem, *told, size, entry.licence)
    lines = [_wrapped(f"  {entry.card.summary}", "  ")] if entry.card else []
    return "\n".join([_title(entry), *lines, _wrapped(f"  {', '.join(fact for fact in facts if fact)}", "  ")])


def _network(name: str) -> str:
    said = weights_as_dict(name)
    state = f"here, {_bytes(said['bytes'])}" if said["here"] else f"not here, {said['megabytes']} MB to download"
    return f"  {name:20}{state}, {said['licence']}"


def _adapter(card: ControlCard) -> str:
    said = f"for {card.base}, {_bytes(card.weights.stat().st_size)}, {card.licence}: {', '.join(card.kinds)}"
    return f"  {card.name}\n" + _wrapped(f"    {said}", "    ")


def _title(entry: Entry) -> str:
    return f"{entry.name} (used unless --model says otherwise)" if entry.name == default() else entry.name


def _known(entry: Entry) -> str:
    names = len(entry.card.vocabulary) if entry.card else 0
    things = f"{entry.concepts:,} things" if entry.concepts else ""
    if not (things and names):
        return things or (f"{names:,} names of things" if names else "")
    return f"{things} by {names:,} names"


def _enlarges(entry: Entry) -> str:
    return f"enlarges {entry.card.factor} times" if entry.card and entry.card.factor else ""


def _pixels(entry: Entry) -> str:
    return f"{entry.size[0]}x{entry.size[1]}" if entry.size else ""


def _defaults(entry: Entry) -> str:
    card = entry.card
    if card is None:
        return ""
    steps = f"{card.steps} steps" if card.steps else ""
    guidance = f"guidance {card.guidance_scale:g}" if card.guidance_scale is not None else ""
    guidance += f" from {card.guidance_start:.0%} of the run" if guidance and card.guidance_start else ""
    solver = f"solver {card.solver}" if card.solver else ""
    noise = f"noise level {card.noise_level}" if card.noise_level is not None else ""
    return ", ".join(part for part in (steps, guidance, solver, noise) if part)


def _bytes(count: int) -> str:
    """In decimal units, as disks are sold."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def _wrapped(text: str, indent: str = "") -> str:
    columns = min(shutil.get_terminal_size().columns, MOST_COLUMNS)
    # Paths and names are left whole, to be copied.
    return textwrap.fill(text, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
