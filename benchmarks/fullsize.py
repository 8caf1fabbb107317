"""Models of the sizes that people use, with random weights, made from their configurations: nothing is downloaded.

What they draw is noise. What they cost is what the real ones cost: the same layers, of the same shapes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import segue
from segue.models.bundle import Defaults, LatentDiffusion
from segue.models.codec import AutoencoderCodec
from segue.models.denoiser import NetworkDenoiser
from segue.models.families.flux import FluxNetwork
from segue.models.families.sd import UNetNetwork
from segue.models.families.sdxl import XlNetwork
from segue.models.weights import freeze, quiet
from segue.types import Call, Conditioning, Network, Prediction

CONFIGS = Path(segue.__file__).parent / "models" / "configs"
META = torch.device("meta")
SEED = 0


@dataclass(frozen=True)
class Size:
    """A model of a known size.

    Args:
        config: the folder of configurations that come with Segue; "" for FLUX, whose defaults are diffusers' own.
        side: of its pictures, in pixels.
        steps: that suit it.
        guidance_scale: that suits it; with 1, a picture takes one network row a step.
        parameters: of the network that denoises.
        text: (tokens, width) of its text; pooled is the width of the pooled vector, 0 for none.
    """

    config: str
    side: int
    steps: int
    guidance_scale: float
    parameters: int
    text: tuple[int, int]
    pooled: int = 0


SIZES = {
    "sd15": Size("sd15", 512, 30, 7.5, 859_520_964, (77, 768)),
    "sd-turbo": Size("sd21", 512, 4, 1.0, 865_910_724, (77, 1024)),
    "sdxl": Size("sdxl", 1024, 30, 4.0, 2_567_463_684, (77, 2048), 1280),
    "sdxl-turbo": Size("sdxl", 512, 4, 1.0, 2_567_463_684, (77, 2048), 1280),
    "flux": Size("", 1024, 4, 1.0, 11_891_178_560, (512, 4096), 768),
}
_FLUX_VAE = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 0.3611}


def skeleton(name: str) -> tuple[nn.Module, nn.Module]:
    """The network that denoises, and the autoencoder, on the meta device: shapes, and no numbers."""
    size = SIZES[name]
    with META, quiet():
        if not size.config:
            changes = {**_FLUX_VAE, "shift_factor": 0.1159}
            denoising = FluxTransformer2DModel(guidance_embeds=False)
            return denoising.eval(), _made(AutoencoderKL, {**_config("sdxl", "vae"), **changes})
        parts = (UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")
        denoising, vae = (_made(kind, _config(size.config, part)) for kind, part in parts)
        return denoising, vae


def _made(kind: Any, config: dict[str, Any]) -> nn.Module:
    return kind.from_config(config).eval()


def _config(folder: str, part: str) -> dict[str, Any]:
    return json.loads((CONFIGS / folder / part / "config.json").read_text("utf-8"))


def filled(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A skeleton with small random weights, in the dtype and the memory format that Segue gives it."""
    generator = torch.Generator(device).manual_seed(SEED)
    network.to(dtype).to_empty(device=device)
    for weight in network.parameters():
        weight.data.normal_(0, 0.02, generator=generator)
    freeze(network, device, dtype)
    return network


@dataclass(frozen=True)
class NoCompute:
    """A Network or an autoencoder of which only the calls count."""

    scale: int = 8
    channels: int = 4

    def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
        """Nothing is drawn."""
        return torch.zeros_like(x)

    def decode(self, latents: Tensor) -> Tensor:
        """The least pictures that can be measured."""
        return latents[:, :1, :4, :4].sigmoid().expand(-1, 3, -1, -1)

    def encode(self, frames: Tensor) -> Tensor:
        """Latents of nothing."""
        count, _, height, width = frames.shape
        return frames.new_zeros(count, self.channels, height // self.scale, width // self.scale)


def built(
    name: str, side: int | None = None, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> LatentDiffusion:
    """A model that computes on a device, or if that is None, one that only counts.

    Args:
        name: of SIZES.
        side: of its pictures in pixels; None is the usual.
        device: where it computes; None computes nothing.
        dtype: of its weights.
    """
    size, place, kind = SIZES[name], device or torch.device("cpu"), dtype or torch.float32
    network: Any = NoCompute(channels=16 if name == "flux" else 4)
    codec: Any = network
    parts: dict[str, nn.Module] = {}
    if device is not None:
        denoising, vae = (filled(part, place, kind) for part in skeleton(name))
        network, codec = network_of(name, denoising), _codec(vae)
        parts = {"unet": denoising, "vae": vae}
    prediction: Prediction = "flow_prediction" if name == "flux" else "epsilon"
    scheduler: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler |= {"timestep_spacing": "trailing" if size.steps < 10 else "leading"}
    if name == "flux":
        scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
    length = side or size.side
    return LatentDiffusion(
        name=f"random weights of the size of {name}",
        text=lambda prompts: words(name, prompts),
        denoiser=NetworkDenoiser(network, prediction),
        codec=codec,
        scheduler=scheduler,
        defaults=Defaults((length, length), size.steps, size.guidance_scale),
        parts=parts,
        weights=(),
        device=place,
        dtype=kind,
    )


def _codec(vae: Any) -> AutoencoderCodec:
    return AutoencoderCodec(vae)


def network_of(name: str, network: Any) -> Network:
    """The family's Network around a network of diffusers."""
    if name == "flux":
        return FluxNetwork(network)
    return XlNetwork(network, 8) if SIZES[name].config == "sdxl" else UNetNetwork(network)


def words(name: str, prompts: Sequence[str]) -> Conditioning:
    """Text of the right shape; a prompt has numbers of its own."""
    size = SIZES[name]
    rows = [torch.randn(*size.text, generator=torch.Generator().manual_seed(len(prompt))) for prompt in prompts]
    pooled = torch.stack([row.flatten()[: size.pooled] for row in rows]) if size.pooled else None
    return Conditioning(torch.stack(rows), pooled=pooled)


def arithmetic(name: str, side: int | None = None) -> tuple[float, float]:
    """Floating-point operations of one network row, and of the decoding of one picture (products and convolutions)."""
    network, vae = skeleton(name)
    latents = (side or SIZES[name].side) // 8
    x, time = torch.zeros(1, 16 if name == "flux" else 4, latents, latents, device=META), torch.zeros(1, device=META)
    taken: list[float] = []
    cond = words(name, ["a"]).to(META)
    row = Call(_nowhere(), (), (0,))
    decoder: Any = vae
    for work in (lambda: network_of(name, network)(x, time, cond, row), lambda: decoder.decode(x)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            work()
        taken.append(float(counter.get_total_flops()))
    return taken[0], taken[1]


def _nowhere() -> Any:
    """Networks that are asked alone do not look at where they are."""
    return None


def parameters(network: nn.Module) -> int:
    """How many numbers a network has."""
    return sum(weight.numel() for weight in network.parameters())


def matmul_peak(device: torch.device, dtype: torch.dtype, side: int, seconds: Any) -> float:
    """Operations a second of a product of large square matrices, the quickest of ten; `seconds` is a clock."""
    a = torch.randn(side, side, device=device).to(dtype)
    best = float("inf")
    for _ in range(10):
        _wait(device)
        start = seconds()
        torch.mm(a, a)
        _wait(device)
        best = min(best, seconds() - start)
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
