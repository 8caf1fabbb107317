"""`segue.load`: an embedded model by name, or any other by path or hub id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.errors import CheckpointError, ModelError, ModelNotFoundError
from segue.zoo.cards import CARD, ModelCard, embedded, names, read_card

if TYPE_CHECKING:
    import torch

    from segue.models.bundle import LatentDiffusion
    from segue.models.control import ControlNetwork
    from segue.models.placement import Placement
    from segue.models.preview import Use
    from segue.types import Codec, Prediction

DEFAULT = "emoji"
VARIABLE = "SEGUE_MODEL"
"""Environment variable that names the model to load when none is asked for."""


def load(
    source: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    prediction: Prediction | None = None,
    config: str | Path | None = None,
    loras: Mapping[str | Path, float | str] | None = None,
    motion: str | Path | None = None,
    instruct: str | Path | None = None,
    placement: Placement | None = None,
    profile: str | None = None,
    preview: str | Path | None = None,
    preview_for: Use = "shown",
) -> LatentDiffusion:
    """A model, ready to use.

    Args:
        source: the name of an embedded model (`segue.zoo.models()` lists them); a folder of the diffusers layout; a
            single .safetensors file; a hub repository. None is what SEGUE_MODEL names, or else the embedded "emoji".
        device: "cpu", "cuda", "mps"; None takes the fastest that this machine has.
        dtype: "float32", "float16" or "bfloat16"; None is float32 on the CPU, elsewhere what the model's family
            computes in: see `segue.models.loading.dtype_of`. "auto" is bfloat16 on CPUs that are quicker in it.
        prediction: what the network predicts, where the files cannot tell.
        config: a folder of the diffusers layout whose configurations a single file shall be read with.
        loras: LoRA files and their scales, merged into the weights. A scale may be a curve over the film that the
            model makes, "0s:0, 2s:1"; it then acts beside the weights, on each row as strongly as its time says.
        motion: by which the model makes clips as well: a motion adapter of AnimateDiff (a folder, a hub repository, a
            file; LoRAs may be made for it), or a file of layers along time; see `with_movement`.
        instruct: a file of an adapter by which the model follows instructions, as segue train instruct writes it.
        placement: what weights are stored as, and which networks wait off the device; None keeps all of them there.
        profile: what the model is used with: turbo, lcm, lightning, hyper, or sd or sdxl for what is usual with
            these; other families have none. None is what its scheduler or its card asks for.
        preview: a small decoder of its latents, by folder or hub repository; "auto" is its own, or its family's.
        preview_for: what that decodes: see `segue.models.preview.Preview`.

    Raises:
        ModelError: with the reason, and what to do; see `segue.models.loading.load_model` and `segue.zoo.cards`.
    """
    card = find_card(wanted := source if source is not None else default())
    from segue.models.loading import find_device, load_model
    from segue.models.placement import Placement, placed

    place, placement = find_device(device), placement or Placement()
    placement.check(place)
    model = load_model(
        card.weights if card else wanted,
        device=place,
        dtype=dtype,
        at_home=placement.begins_at_home,
        prediction=prediction,
        config=config,
        loras={card.folder / card.lora: 1.0} if card and card.lora else None,
        text_from=card.words_from if card else None,
        name=str(wanted),
        profile=None if card else profile,
    )
    model = with_card(model, card, profile) if card else model
    model = placed(with_files(model, motion, instruct, loras or {}), placement, place)
    return model if preview is None else _with_preview(model, preview, preview_for, card, placement.tile)


def default() -> str:
    """What is loaded when nothing is asked for."""
    return os.environ.get(VARIABLE) or DEFAULT


def find_card(source: str | Path) -> ModelCard | None:
    """The card of an embedded model, or of a local folder that has one.

    Raises:
        ModelNotFoundError: a bare name that is no embedded model, and no file or folder here.
        ModelError: the card cannot be used; see `segue.zoo.cards.read_card`.
    """
    if isinstance(source, str) and source in names():
        return embedded(source)
    folder = Path(source).expanduser()
    if folder.exists():
        return read_card(folder) if (folder / CARD).is_file() else None
    if isinstance(source, str) and "/" not in source and not folder.suffix:
        there = ", ".join(names()) or "none in this installation"
        raise ModelNotFoundError(
            f'there is no embedded model "{source}" (there are: {there}). Give one of these, the path of a folder or '
            f"of a .safetensors file, or a hub repository as owner/name; {VARIABLE} sets the default"
        )
    return None


def stated_by(card: ModelCard) -> dict[str, Any]:
    """The fields of a model's defaults that its card states."""
    fields = ("size", "steps", "guidance_scale", "guidance_start", "solver", "picture_scale")
    return {key: getattr(card, key) for key in fields if getattr(card, key) is not None}


def with_card(model: LatentDiffusion, card: ModelCard, profile: str | None = None) -> LatentDiffusion:
    """The model with the defaults and the vocabulary of its card, with its layers along time and its adapter.

    A profile that is asked for speaks first. The card's files are a part of the model's name.

    Raises:
        CheckpointError: the card says that it enlarges, by so much, and the model does not; or layers along time do not
            fit it.
    """
    found = model.upscaling.factor if model.upscaling else None
    if card.factor != found and card.factor is not None:
        raise CheckpointError(f"{card.folder / CARD} says factor = {card.factor}, and its weights have {found}")
    if model.upscaling is not None and card.noise_level is not None:
        model = replace(model, upscaling=replace(model.upscaling, noise_level=card.noise_level))
    defaults = replace(model.defaults, **stated_by(card))
    model = replace(model, defaults=defaults, vocabulary=card.vocabulary, words=card.words, loras=())
    if card.time is not None:
        from segue.models.time_files import with_time_file

        model = with_time_file(model, card.folder / card.time)
    if card.instruct is not None:
        from segue.models.instruct_files import with_instruct_file

        model = with_instruct_file(model, card.folder / card.instruct)
    if profile:
        from segue.models.profiles import with_profile

        model = with_profile(model, profile, stated=True)
    return model


def with_files(
    model: LatentDiffusion,
    motion: str | Path | None,
    instruct: str | Path | None,
    loras: Mapping[str | Path, float | str],
) -> LatentDiffusion:
    """The model with what is added to it before it is placed; see `load`."""
    model = with_movement(model, motion) if motion is not None else model
    model = with_instructions(model, instruct) if instruct is not None else model
    return with_loras(model, loras) if loras else model


def with_movement(model: LatentDiffusion, motion: str | Path) -> LatentDiffusion:
    """A model of single pictures with what makes its frames move together: a motion adapter, or layers along time.

    Raises:
        ModelError: with the reason; see `segue.models.families.animatediff` and `segue.models.families.videoldm`.
    """
    from segue.models.families import videoldm
    from segue.models.time_files import is_time_file

    file = Path(motion).expanduser()
    if file.suffix == ".safetensors" and file.is_file() and is_time_file(file):
        return videoldm.from_file(model, file)
    from segue.models.families.animatediff import with_motion_adapter

    return with_motion_adapter(model, motion)


def with_instructions(model: LatentDiffusion, instruct: str | Path) -> LatentDiffusion:
    """A model with the adapter of a file, by which it is known afterwards.

    Raises:
        ModelError: with the reason; see `segue.models.instruct_files.with_instruct_file`.
    """
    from segue.models.instruct_files import with_instruct_file

    file = Path(instruct).expanduser()
    return replace(with_instruct_file(model, file), instruct_adapter=str(file.absolute()))


def _with_preview(
    model: LatentDiffusion, source: str | Path, use: Use, card: ModelCard | None, tile: int | None
) -> LatentDiffusion:
    from segue.models.preview import AUTO, published, with_preview

    if card is None or card.small_decoder is None:
        return with_preview(model, source, use, tile=tile)
    if str(source) in published():
        raise ModelError(f"{source} knows nothing of the latents of {model.name}, which are its own: take {AUTO}")
    model = with_preview(model, card.small_decoder if str(source) == AUTO else source, use, tile=tile)
    assert model.preview is not None
    return replace(model, preview=replace(model.preview, source=AUTO)) if str(source) == AUTO else model


def small_decoder(model: LatentDiffusion) -> Codec | None:
    """The small decoder that comes with an embedded model, on its device; None for all other models."""
    from segue.models.codec import codec_dtype
    from segue.models.preview import read_preview
    from segue.models.weights import read_json

    card = embedded(model.name) if model.name in names() else None
    if card is None or card.small_decoder is None:
        return None
    config = read_json(card.small_decoder / "config.json")
    return read_preview(card.small_decoder, model.device, codec_dtype(config, model.dtype))[0]


def with_loras(model: LatentDiffusion, loras: Mapping[str | Path, float | str]) -> LatentDiffusion:
    """The model with LoRAs. They may teach words that no card knows of, so the vocabulary is left open.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or made for another architecture.
    """
    from segue.models.lora import merged
    from segue.models.lora_rows import attached

    model = merged(model, {Path(file): scale for file, scale in loras.items() if not isinstance(scale, str)})
    if curves := {Path(file): scale for file, scale in loras.items() if isinstance(scale, str)}:
        model = attached(model, curves)
    return replace(model, vocabulary=(), words={})


def load_control(source: str | Path, model: LatentDiffusion, kind: str | None = None) -> ControlNetwork:
    """A control network for a model.

    Args:
        source: a kind of control picture, such as "softedge", for the network that is usual with the model; or a
            folder, file or hub repository: also what `segue train control` wrote.
        model: which it is to control.
        kind: of control pictures, where the source names a network that knows several, as such adapters do.

    Raises:
        ModelError: with the reason, and what to do; see `segue.models.control_files.load_control`.
    """
    from segue.models import control_files
    from segue.zoo.controls import embedded_control

    if kind in (None, source) and isinstance(source, str) and (found := embedded_control(source, model)) is not None:
        return found
    return control_files.load_control(source, model, kind=kind)
