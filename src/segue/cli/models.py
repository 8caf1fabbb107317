"""`segue models`: what comes with this installation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from segue.cli.fields import verb
from segue.zoo.cards import models as cards


@dataclass(frozen=True)
class Listing:
    """How to say it.

    Args:
        json: print a JSON list instead of text.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    json: bool = False


@verb
def models(listing: Listing) -> int:
    """List the models that come with this installation; any other can be given to --model by folder, file or hub id."""
    found = cards()
    if listing.json:
        print(json.dumps([{**asdict(card), "folder": str(card.folder)} for card in found]))
        return 0
    for card in found:
        size = f"{card.size[0]}x{card.size[1]}" if card.size else "size of the checkpoint"
        details = [size, f"{card.steps} steps" if card.steps else "", card.solver or "", card.licence]
        print(f"{card.name}  {card.summary}\n    {', '.join(part for part in details if part)}\n    {card.folder}")
        if card.vocabulary:
            print(f"    knows {', '.join(card.vocabulary)}")
    if not found:
        print("no model comes with this installation; give one to --model: a folder, a .safetensors file, or a hub id")
    return 0
