"""What a safetensors file holds, by the names and shapes of its tensors, so that a wrong one is called by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from segue.models.weights import Entry

What = Literal[
    "checkpoint",
    "LoRA",
    "ControlNet",
    "motion adapter",
    "IP-Adapter",
    "textual inversion",
    "UNet",
    "transformer",
    "autoencoder",
    "text encoder",
]
SD1, SD2, XL = "Stable Diffusion 1.x", "Stable Diffusion 2.x", "Stable Diffusion XL"
REFINER, SD3, FLUX = "the refiner of Stable Diffusion XL", "Stable Diffusion 3", "FLUX"
WIDTHS = {768: SD1, 1024: SD2, 2048: XL, 1280: REFINER}
"""Families by the width of the text that their networks attend to."""

_UNET = "model.diffusion_model."
_PART = "it is one part of a model folder: give the folder that holds model_index.json"
_BESIDE = "it goes beside a model, and is none: give the model itself"
_ADVICE: Mapping[What, str] = {
    "LoRA": "load the model that it was made for, and give this file as one of its loras",
    "ControlNet": _BESIDE,
    "motion adapter": _BESIDE,
    "IP-Adapter": _BESIDE,
    "textual inversion": _BESIDE,
    "UNet": _PART,
    "transformer": _PART,
    "autoencoder": _PART,
    "text encoder": _PART,
    "checkpoint": "give the folder of the diffusers layout that it comes from, or its hub repository",
}


@dataclass(frozen=True)
class Kind:
    """What a file is.

    Args:
        what: a whole model, a part of one, or what goes beside one.
        family: which models it belongs to; "" if it cannot be told.
    """

    what: What
    family: str = ""

    def __str__(self) -> str:
        article = "an" if self.what[0] in "AaIU" and self.what != "UNet" else "a"
        if not self.family:
            return f"{article} {self.what}"
        if self.what == "checkpoint":
            return f"a checkpoint of {self.family}"
        return f"{article} {self.what} for {self.family}"

    @property
    def advice(self) -> str:
        """What to do with it where a whole model was expected."""
        return _ADVICE[self.what]


def kind_of(header: Mapping[str, Entry]) -> Kind | None:
    """What the tensors of a file are; None if nothing that is known."""
    what: What | None = next((what for what, form in _FORMS if any(form.search(key) for key in header)), None)
    if what is None:
        return None
    if what == "textual inversion":
        widths = {entry.shape[-1] for entry in header.values() if entry.shape}
        return Kind(what, XL if "clip_g" in header else WIDTHS.get(min(widths, default=0), ""))
    # Autoencoders of 1.x, 2.x and XL have the same tensors; so do their text encoders, in part.
    return Kind(what, "" if what in ("autoencoder", "text encoder") else _family(header))


_FORMS: tuple[tuple[What, re.Pattern[str]], ...] = (
    ("LoRA", re.compile(r"lora[_.]|\.(hada|lokr)_|dora_scale")),
    ("textual inversion", re.compile(r"^(emb_params|clip_[lg]|string_to_param(\..*)?)$")),
    ("ControlNet", re.compile(r"^control_model\.|controlnet_cond_embedding|input_hint_block|controlnet_blocks")),
    ("motion adapter", re.compile(r"motion_modules\.")),
    ("IP-Adapter", re.compile(r"^(ip_adapter|image_proj)\.")),
    ("checkpoint", re.compile(r"^model\.diffusion_model\.")),
    ("transformer", re.compile(r"^(double_blocks|joint_blocks|transformer_blocks|single_transformer_blocks)\.")),
    ("UNet", re.compile(r"^(down_blocks\.\d+\.(resnets|attentions)|input_blocks)\.")),
    (
        "autoencoder",
        re.compile(r"^(first_stage_model\.)?(encoder\.(down|mid|conv_in)|decoder\.(up|mid|conv_in|layers\.\d))"),
    ),
    (
        "text encoder",
        re.compile(r"^(text_model\.|embeddings\.|encoder\.(layers|block)\.|shared\.weight$|cond_stage_model\.)"),
    ),
)


def _family(header: Mapping[str, Entry]) -> str:
    """The family of a network, or of a LoRA for one."""
    names = [key.replace(".", "_") for key in header]

    def has(form: str) -> bool:
        return any(re.search(form, name) for name in names)

    if has(r"(^|_)(double_blocks|single_blocks|single_transformer_blocks)_"):
        return FLUX
    if has(r"(^|_)joint_blocks_|^transformer_(transformer_blocks|context_embedder)_|^transformer_blocks_"):
        return SD3
    if any(key.startswith("conditioner.embedders.0.model.") for key in header):
        return REFINER
    if has(r"^conditioner_embedders_1_|^(lora_te2|text_encoder_2)_"):
        return XL
    found = {WIDTHS[width] for width in _text_widths(header) if width in WIDTHS}
    if len(found) == 1:
        return found.pop()
    # Only this family has several transformer layers in one place, and is told sizes.
    return XL if has(r"(attentions_\d+|blocks_\d+_1)_transformer_blocks_[1-9]|add_embedding_|_label_emb_") else ""


def _text_widths(header: Mapping[str, Entry]) -> Iterator[int]:
    for key, entry in header.items():
        into = re.search(r"attn2[._](processor[._])?to_(k|v)", key) and not re.search(r"lora[_.](B|up)|lora\.up", key)
        if into and len(entry.shape) > 1 and not key.endswith("alpha"):
            yield entry.shape[1]
