"""Where a run begins: exported parts by their folder, or those of an embedded model by its name."""

from __future__ import annotations

from pathlib import Path

from segue.zoo.load import find_card


def folder_of(source: Path, part: str = "") -> Path:
    """The folder of a model, or of one part of it.

    Args:
        source: the name of an embedded model, the folder of a model, or that of the part itself.
        part: as "vae"; "" is the whole model.

    Raises:
        ModelNotFoundError: a bare name that is neither an embedded model nor anything here.
    """
    card = find_card(str(source))
    folder = card.weights if card is not None else source.expanduser()
    return folder / part if (folder / "model_index.json").is_file() else folder
