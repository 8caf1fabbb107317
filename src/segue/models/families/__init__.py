"""One file per family of models; each returns a `LatentDiffusion`. This face only lists them, and imports none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segue.errors import CheckpointError


@dataclass(frozen=True)
class Family:
    """A family of models, as far as it can be told without reading one.

    Args:
        name: what people call it.
        module: the file of this package that reads it, by `from_folder`.
        pipelines: what the index of its folders says that they are made for.
        parts: the folders that hold weights.
        optional: those that may be missing.
        half: what it computes in on a graphics card.
        preview: the hub repository of a small decoder of its latents; "" if none is published.
    """

    name: str
    module: str
    pipelines: tuple[str, ...]
    parts: tuple[str, ...]
    optional: tuple[str, ...] = ()
    half: str = "float16"
    preview: str = ""


FAMILIES = (
    Family(
        "Stable Diffusion",
        "sd",
        (
            "StableDiffusionPipeline",
            "StableDiffusionImg2ImgPipeline",
            "StableDiffusionInpaintPipeline",
            "StableDiffusionInstructPix2PixPipeline",
            "LatentConsistencyModelPipeline",
        ),
        ("unet", "text_encoder", "vae"),
        preview="madebyollin/taesd",
    ),
    Family(
        "Stable Diffusion XL",
        "sdxl",
        (
            "StableDiffusionXLPipeline",
            "StableDiffusionXLImg2ImgPipeline",
            "StableDiffusionXLInpaintPipeline",
            "StableDiffusionXLInstructPix2PixPipeline",
        ),
        ("unet", "text_encoder", "text_encoder_2", "vae"),
        preview="madebyollin/taesdxl",
    ),
    Family("x4 upscaler", "upscaler", ("StableDiffusionUpscalePipeline",), ("unet", "text_encoder", "vae")),
    Family(
        "Stable Diffusion 3",
        "sd3",
        ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
        ("transformer", "text_encoder", "text_encoder_2", "vae", "text_encoder_3"),
        optional=("text_encoder_3",),
        half="bfloat16",
        preview="madebyollin/taesd3",
    ),
    Family(
        "FLUX",
        "flux",
        ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
        ("transformer", "text_encoder", "text_encoder_2", "vae"),
        half="bfloat16",
        preview="madebyollin/taef1",
    ),
    Family("UNet3D text to video", "unet3d", ("TextToVideoSDPipeline",), ("unet", "text_encoder", "vae")),
    Family("Stable Video Diffusion", "svd", ("StableVideoDiffusionPipeline",), ("unet", "image_encoder", "vae")),
)


def family_of(pipeline: str) -> Family | None:
    """The family whose folders are made for this pipeline; None if Segue reads none of them."""
    return next((family for family in FAMILIES if pipeline in family.pipelines), None)


def find_family(index: Mapping[str, Any], name: str) -> Family:
    """The family of a model whose model_index.json says this.

    Raises:
        CheckpointError: with those that there are, if Segue reads none such.
    """
    kind = str(index.get("_class_name"))
    family = family_of(kind)
    if family is None:
        raise CheckpointError(f"{name} is made for {kind}; Segue reads {', '.join(one.name for one in FAMILIES)}")
    return family
