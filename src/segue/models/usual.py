"""What a model is used with, told by its configurations alone: the same that its reader says once it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segue.diffusion.solvers import solver_for
from segue.errors import CheckpointError
from segue.models.bundle import Defaults
from segue.models.families import flux, sd, sd3, upscaler
from segue.models.profiles import find_profile, profile_for
from segue.models.single_file import SD2
from segue.models.transformer import check_flow

if TYPE_CHECKING:
    from segue.models.skeleton import Skeleton
    from segue.types import Prediction


def usual(model: Skeleton, prediction: Prediction | None = None, profile: str | None = None) -> Defaults:
    """Size, steps, guidance and solver of a model, as `segue.models.loading.load_model` would say them.

    Args:
        model: without its weights.
        prediction: what it is said to predict.
        profile: a name of `segue.models.profiles`; None is what its scheduler asks for.

    Raises:
        ModelError: a profile that there is not, or that does not suit it; a prediction that cannot be.
        CheckpointError: its configurations do not say enough.
    """
    if profile is not None and not model.stated:
        prediction = prediction or find_profile(profile).prediction
    if model.family in ("sd3", "flux"):
        check_flow(prediction, model.scheduler, model.name)
        scheduler = model.scheduler
    else:
        scheduler = sd.predicting(model.scheduler, prediction)
    try:
        found = _of_family(model, scheduler)
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{model.name}: its configurations do not say what it is used with: {error}") from error
    if model.configs == SD2 and not model.stated and scheduler.get("prediction_type", "epsilon") == "epsilon":
        found = replace(found, size=(512, 512))
    chosen = profile_for(profile, model.family, scheduler, model.name)
    return found if chosen is None else chosen.over(found, told=model.told_guidance, stated=model.stated)


def _of_family(model: Skeleton, scheduler: Mapping[str, Any]) -> Defaults:
    network: Any = model.parts[model.denoiser]
    vae: Any = model.codec.vae
    if model.family == "flux":
        return flux.defaults(model.told_guidance, scheduler, int(vae.config["sample_size"]))
    side = int(network.config["sample_size"]) * model.codec.scale
    if model.family == "sd3":
        return sd3.defaults(side)
    if model.family == "upscaler":
        steps, scale = upscaler.STEPS, upscaler.GUIDANCE_SCALE
    else:
        profile = find_profile(model.family)
        steps, scale = profile.steps, profile.guidance_scale
    return Defaults((side, side), steps, scale, solver=solver_for(scheduler))
