"""Profiles: what models of a kind are used with. Data beside the families, named by the user or by the checkpoint."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.diffusion.schedule import is_flow
from segue.errors import ModelError
from segue.types import Prediction

if TYPE_CHECKING:
    from segue.models.bundle import Defaults, LatentDiffusion

_TABLE = Path(__file__).parent / "families" / "profiles.toml"


@dataclass(frozen=True)
class Profile:
    """How models of a kind are used.

    Args:
        name: as users spell it; that of a family is its base.
        about: which models it is for.
        families: modules of `segue.models.families` whose models it suits.
        steps: of the schedule.
        guidance_scale: 1 is unguided.
        told_guidance_scale: of networks that are told it as a number; None is `guidance_scale`.
        solver: None leaves the one of the checkpoint.
        size: (width, height) in pixels, where a model's files do not state it.
        prediction: what the network predicts, where its files do not state it.
        scheduler: entries laid over the checkpoint's scheduler configuration.
        says: scheduler configurations that choose this profile by themselves.
    """

    name: str
    about: str
    families: tuple[str, ...]
    steps: int
    guidance_scale: float
    told_guidance_scale: float | None = None
    solver: str | None = None
    size: tuple[int, int] | None = None
    prediction: Prediction | None = None
    scheduler: Mapping[str, Any] = field(default_factory=dict[str, Any])
    says: tuple[Mapping[str, Any], ...] = ()

    def suits(self, family: str, scheduler: Mapping[str, Any]) -> bool:
        """Whether it can be used with a model. What was distilled from noise prediction is no use on a flow."""
        return family in self.families and (self.name == family or not is_flow(scheduler))

    def over(self, before: Defaults, *, told: bool, stated: bool) -> Defaults:
        """The defaults of a model with those of this profile laid over them.

        Args:
            before: without it.
            told: whether the network is told its guidance scale as a number.
            stated: whether the model's files state the size that it is made for.
        """
        return replace(
            before,
            steps=self.steps,
            guidance_scale=(told and self.told_guidance_scale) or self.guidance_scale,
            guidance_start=0.0,
            solver=self.solver or before.solver,
            size=self.size if self.size and not stated else before.size,
        )


@cache
def profiles() -> Mapping[str, Profile]:
    """All profiles by name."""
    lists = ("families", "size", "says")
    found: dict[str, Profile] = {}
    for name, said in tomllib.loads(_TABLE.read_text(encoding="utf-8")).items():
        values: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in said.items()}
        found[name] = Profile(name, **values)
    return found


def find_profile(name: str) -> Profile:
    """The profile of this name.

    Raises:
        ModelError: with the names that there are.
    """
    if name not in profiles():
        raise ModelError(f"profile must be one of {', '.join(profiles())}; got {name!r}")
    return profiles()[name]


def chosen_by(family: str, scheduler: Mapping[str, Any]) -> Profile | None:
    """The profile that a checkpoint's own scheduler configuration asks for, if it does."""
    # Betas that end in pure noise ask for trailing times as well, and make no model a turbo.
    if scheduler.get("rescale_betas_zero_snr"):
        return None
    said = {"prediction_type": "epsilon", **scheduler}
    return next(
        (
            profile
            for profile in profiles().values()
            if profile.suits(family, scheduler) and any(wanted.items() <= said.items() for wanted in profile.says)
        ),
        None,
    )


def profile_for(name: str | None, family: str, scheduler: Mapping[str, Any], title: str) -> Profile | None:
    """The profile of this name; without one, that which a checkpoint's scheduler asks for, if it does.

    Args:
        name: of the profile, or None.
        family: of the model.
        scheduler: its configuration.
        title: what the model is called.

    Raises:
        ModelError: an unknown profile, or one that does not suit the model.
    """
    if name is None:
        return chosen_by(family, scheduler)
    profile = find_profile(name)
    if not profile.suits(family, scheduler):
        fitting = [one.name for one in profiles().values() if one.suits(family, scheduler)]
        names = f"expected one of {', '.join(fitting)}" if fitting else "leave profile out, there is none for it"
        raise ModelError(f"profile {profile.name!r} is for {profile.about}, and {title} is no such model; {names}")
    return profile


def with_profile(model: LatentDiffusion, name: str | None, *, stated: bool) -> LatentDiffusion:
    """The model with the defaults of a profile, which becomes part of what it is.

    Args:
        model: any.
        name: of the profile; None is the one that the checkpoint asks for, and else leaves the model as it is.
        stated: whether the model's files state the size that it is made for.

    Raises:
        ModelError: an unknown profile, or one that does not suit the model.
    """
    profile = profile_for(name, model.family, model.scheduler, model.name)
    if profile is None:
        return model
    defaults = profile.over(model.defaults, told=model.denoiser.embeds_guidance, stated=stated)
    return replace(model, scheduler={**model.scheduler, **profile.scheduler}, defaults=defaults, profile=profile.name)
