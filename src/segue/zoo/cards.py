"""Cards: what an embedded model is, what it knows, and how it is best used. A card.toml lies beside the weights.

    name = "emoji"                        # of its folder
    summary = "..."
    licence = "MIT"                       # an SPDX expression
    concepts = 2                          # different things; the vocabulary also has their other names
    vocabulary = ["apple", "cup of coffee", "coffee"]

    [words]                               # what may be said of a thing, in kinds of any name
    colours = ["red", "dark blue"]
    styles = ["flat", "line art"]

    [defaults]
    size = [128, 128]
    steps = 20
    guidance_scale = 3.0
    guidance_start = 0.25
    solver = "ddim"

A model that is derived from another has no weights of its own but a LoRA, and takes what its card leaves out from its
base, an embedded model that has none itself:

    base = "emoji"
    lora = "student.safetensors"          # a file in the card's folder, merged at scale 1

Or it is made to move: layers along time (`segue.models.time_inserted`) stand in the UNet of its base, which itself
stays as it is, be it a model that draws or an upscaler. A model may have several of these:

    base = "emoji"
    time = "motion.safetensors"           # a file in the card's folder

Or it follows instructions, by an adapter (`segue.models.instruct_adapter`) beside its base, which stays as it is. It
then has a scale of guidance towards the picture besides:

    base = "emoji"
    instruct = "instruct.safetensors"     # a file in the card's folder

    [defaults]
    picture_scale = 1.2

A model may come with a small decoder of its latents, which is read when it is asked for:

    preview = "preview"                   # a folder beside the weights

An upscaler says by how much, and may share the text encoder and the tokenizer of an embedded model:

    factor = 4
    text = "emoji"

    [defaults]
    noise_level = 10
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from segue.errors import CheckpointError, ModelNotFoundError

WEIGHTS = Path(__file__).parent / "weights"
CARD = "card.toml"
INHERITED = (
    "concepts",
    "size",
    "steps",
    "guidance_scale",
    "guidance_start",
    "solver",
    "vocabulary",
    "preview",
    "text",
    "factor",
    "noise_level",
)
"""What a derived model takes from its base where its own card is silent. Its words are its base's and its own."""

SOLVERS = ("ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "lcm")
"""What a card may name. These are all that Segue has; a card is read without torch, so that they cannot be asked."""

REQUIRED = ("name", "summary", "licence")


@dataclass(frozen=True)
class ModelCard:
    """What a model is.

    Args:
        name: what `segue.load` finds it by.
        summary: one line.
        licence: an SPDX expression.
        folder: where its weights are.
        base: the embedded model that it is derived from; None if its weights are its own.
        lora: the LoRA in its folder that is merged into the weights of its base; None if there is none.
        time: the layers along time in its folder that are put into its base; None if it makes single pictures.
        instruct: the adapter in its folder by which its base follows instructions; None if it follows none.
        text: the embedded model whose text encoder and tokenizer it shares; None if it has its own.
        factor: by how much it enlarges a side; None for what is no upscaler.
        preview: the folder in that of its weights which holds a small decoder of its latents; None if there is none.
        concepts: how many different things it can draw; None if nobody counted.
        size: (width, height) in pixels that it is made for.
        steps: that suit it.
        guidance_scale: that suits it.
        guidance_start: that suits it.
        solver: that suits it; None leaves it to the checkpoint's scheduler.
        noise_level: of the small picture that an upscaler is shown, that suits it.
        picture_scale: of guidance towards the picture that an instruction model is shown, that suits it.
        vocabulary: the things that it can draw, by all their names; empty if it knows too many to list.
        words: what else it understands, by kind: colours, styles, places.
    """

    name: str
    summary: str
    licence: str
    folder: Path
    base: str | None = None
    lora: str | None = None
    time: str | None = None
    instruct: str | None = None
    text: str | None = None
    factor: int | None = None
    preview: str | None = None
    concepts: int | None = None
    size: tuple[int, int] | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    guidance_start: float | None = None
    solver: str | None = None
    noise_level: int | None = None
    picture_scale: float | None = None
    vocabulary: tuple[str, ...] = field(default=(), repr=False)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]], repr=False)

    @property
    def weights(self) -> Path:
        """The folder of the diffusers layout: its own, or its base's."""
        return self.folder if self.base is None else WEIGHTS / self.base

    @property
    def small_decoder(self) -> Path | None:
        """The folder of the small decoder of its latents."""
        return None if self.preview is None else self.weights / self.preview

    @property
    def words_from(self) -> Path | None:
        """The folder of the model whose text encoder and tokenizer it shares."""
        return None if self.text is None else WEIGHTS / self.text


def names() -> tuple[str, ...]:
    """What the models that come with this installation are called; no card is read."""
    return tuple(sorted(path.parent.name for path in WEIGHTS.glob(f"*/{CARD}")))


def models() -> tuple[ModelCard, ...]:
    """The models that come with this installation, by name.

    Raises:
        ModelError: see `read_card`.
    """
    return tuple(embedded(name) for name in names())


def embedded(name: str) -> ModelCard:
    """The card of one of `names()`.

    Raises:
        ModelError: see `read_card`.
        CheckpointError: the card has another name than its folder, by which it is found.
    """
    card = read_card(WEIGHTS / name)
    if card.name != name:
        raise CheckpointError(
            f'{card.folder / CARD} says name = "{card.name}", and its folder is {name}: they must be alike'
        )
    return card


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder; its `[defaults]` are optional, one by one. A base fills in what is left out.

    Raises:
        CheckpointError: it is no TOML, or a field is missing, unknown or of the wrong type; the model has both a base
            and weights of its own, or its base has a base.
        ModelNotFoundError: there is no such base, no such LoRA in the folder, or no model with the text that it shares.
    """
    card = _parsed(folder)
    if card.words_from is not None and not (card.words_from / "text_encoder").is_dir():
        raise ModelNotFoundError(f'{folder / CARD}: "{card.text}" is no embedded model with a text encoder to share')
    if card.base is None:
        return card
    where = folder / CARD
    if card.base not in names():
        there = ", ".join(name for name in names() if WEIGHTS / name != folder) or "none"
        raise ModelNotFoundError(f'{where}: its base "{card.base}" is no embedded model (there are: {there})')
    base = _parsed(WEIGHTS / card.base)
    if base.base is not None:
        raise CheckpointError(
            f'{where}: its base "{card.base}" has a base itself, "{base.base}"; a model is derived from one that has '
            "weights of its own"
        )
    silent = [key for key in INHERITED if getattr(card, key) in (None, ())]
    words = {**base.words, **card.words}
    return replace(card, **{key: getattr(base, key) for key in silent}, words=words)


def _parsed(folder: Path) -> ModelCard:
    path = folder / CARD
    try:
        card = _card(folder, tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, ValueError) as error:
        raise CheckpointError(f"{path} is no model card ({error}); see segue.zoo.cards for its fields") from None
    if card.base is None:
        return card
    if (folder / "model_index.json").exists():
        raise CheckpointError(f"{path} names a base, and its folder has weights of its own; it can only have one")
    for file in (card.lora, card.time, card.instruct):
        if file is not None and not (folder / file).is_file():
            raise ModelNotFoundError(f'{folder / file} is missing; it makes "{card.name}" out of "{card.base}"')
    return card


def _card(folder: Path, said: dict[str, Any]) -> ModelCard:
    defaults: Any = said.pop("defaults", {})
    if not isinstance(defaults, dict):
        raise ValueError(f"[defaults] must be a table, got {defaults!r}")
    values: dict[str, Any] = {**said, **defaults}
    for key, value in values.items():
        if key not in _FIELDS:
            raise ValueError(f"there is no field {key}")
        is_right, expected = _FIELDS[key]
        if not is_right(value):
            raise ValueError(f"{key} must be {expected}, got {value!r}")
    if missing := [key for key in REQUIRED if key not in values]:
        raise ValueError(f"{' and '.join(missing)} must be given")
    for key in ("size", "vocabulary"):
        if key in values:
            values[key] = tuple(values[key])
    values["words"] = {kind: tuple(words) for kind, words in values.get("words", {}).items()}
    card = ModelCard(folder=folder, **values)
    derived = {"lora": card.lora, "time": card.time, "instruct": card.instruct}
    if (card.base is None) != all(file is None for file in derived.values()):
        raise ValueError(f"base is given together with one or more of {', '.join(derived)}")
    if card.base is not None and card.text is not None:
        raise ValueError("a model with a base has the text of its base")
    if card.noise_level is not None and card.factor is None:
        raise ValueError("noise_level is of upscalers, which have a factor")
    for key, file in derived.items():
        if file is not None and Path(file).name != file:
            raise ValueError(f"{key} must be the name of a file in the same folder, got {file!r}")
    return card


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_level(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_scale(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1000


def _is_start(value: Any) -> bool:
    return _is_scale(value) and value < 1


def _is_size(value: Any) -> bool:
    return _all_are(_is_count, value) and len(value) == 2


def _is_list(value: Any) -> bool:
    return _all_are(_is_text, value)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_list, cast("dict[str, Any]", value).values()))


def _all_are(is_right: Callable[[Any], bool], value: Any) -> bool:
    return isinstance(value, list) and all(map(is_right, cast("list[Any]", value)))


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("name", "summary", "licence", "base", "lora", "time", "instruct", "text", "preview"),
        (_is_text, "words in quotes"),
    ),
    **dict.fromkeys(("concepts", "steps", "factor"), (_is_count, "a whole number from 1")),
    **dict.fromkeys(("guidance_scale", "picture_scale"), (_is_scale, "a number from 0 to 1000")),
    "guidance_start": (_is_start, "a number from 0, below 1"),
    "noise_level": (_is_level, "a whole number from 0"),
    "size": (_is_size, "width and height, whole numbers from 1"),
    "solver": (SOLVERS.__contains__, f"one of {', '.join(SOLVERS)}"),
    "vocabulary": (_is_list, "a list of words"),
    "words": (_is_table, "a table of lists of words"),
}
"""Of each field, what is right and how that is said."""
