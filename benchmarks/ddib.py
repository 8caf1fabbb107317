"""DDIB in two dimensions: points of one shape become points of another, by way of the same noise.

    python benchmarks/ddib.py -o runs/ddib --plot docs/ddib.png
    python benchmarks/ddib.py -o runs/ddib --updates 2000        # by small networks, trained here

After Su et al. 2022 (arXiv:2203.08382, section 5.1). Each shape has a denoiser of its own, which knows no other; they
meet in the noise alone. It is the best that there can be: that of a sample of the shape, as a mixture of Gaussians, so
that what is seen is the bridge's doing and not that of a training. `--updates` takes networks instead. Colours say
where a point came from: they stay in order, since both halves of the way are flows of an ODE, which do not cross.

Told are, for each pair of shapes: `there`, the energy distance of what arrives from the target shape, beside that of a
fresh sample of the target (`sample`) and of the source (`apart`); and for numbers of steps, how far points are from
where they began that went there and back: `ddim`, whose error falls as 1 / steps, and `exact`, the same with the
exactly invertible solver on both halves. That solver is exact for each half by itself; there and back also needs the
second half to be the first one backwards, which it is to second order.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segue.diffusion.schedule import Schedule
from segue.models.denoiser import NetworkDenoiser
from segue.temporal.bridge import bridged
from segue.temporal.inversion import Inversion, exactly_inverted, inverted
from segue.types import Call, Condition, Conditioning, Denoiser, Point, RowId

PAIRS = (("moons", "checkerboard"), ("rings", "squares"), ("spirals", "moons"))
STEPS = (25, 50, 100, 250, 1000)
DRAWN_STEPS = 100
CONFIG = {"beta_start": 0.0001, "beta_end": 0.02, "timestep_spacing": "trailing"}
WIDTH, BATCH = 128, 1024


def moons(count: int, generator: torch.Generator) -> Tensor:
    """Two half circles, one turned over."""
    angle = math.pi * torch.rand(count, generator=generator)
    below = torch.rand(count, generator=generator) < 0.5
    x = torch.where(below, 1 - angle.cos(), angle.cos()) - 0.5
    y = torch.where(below, 0.5 - angle.sin(), angle.sin()) - 0.25
    return 1.2 * torch.stack([x, y], 1) + 0.06 * torch.randn(count, 2, generator=generator)


def checkerboard(count: int, generator: torch.Generator) -> Tensor:
    """The black fields of a board of 4x4."""
    x = 4 * torch.rand(count, generator=generator)
    y = 2 * torch.rand(count, generator=generator)
    y = y.floor() * 2 + (x.floor() % 2) + y % 1
    return (torch.stack([x, y], 1) - 2) * 0.85


def rings(count: int, generator: torch.Generator) -> Tensor:
    """Two circles with one centre."""
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    radius = torch.where(torch.rand(count, generator=generator) < 0.6, 1.6, 0.7)
    points = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return points + 0.05 * torch.randn(count, 2, generator=generator)


def squares(count: int, generator: torch.Generator) -> Tensor:
    """The outlines of two squares, one in the other."""
    along, side = 2 * torch.rand(count, generator=generator) - 1, torch.randint(4, (count,), generator=generator)
    edge = torch.where(side % 2 == 0, 1.0, -1.0)
    upright = (side < 2)[:, None]
    points = torch.where(upright, torch.stack([edge, along], 1), torch.stack([along, edge], 1))
    half = torch.where(torch.rand(count, generator=generator) < 0.6, 1.6, 0.7)
    return half[:, None] * points + 0.04 * torch.randn(count, 2, generator=generator)


def spirals(count: int, generator: torch.Generator) -> Tensor:
    """Two arms."""
    turn = 3 * math.pi * torch.rand(count, generator=generator).sqrt() + 0.3
    arm = torch.where(torch.rand(count, generator=generator) < 0.5, 1.0, -1.0)
    points = (arm * turn)[:, None] * torch.stack([turn.cos(), turn.sin()], 1) / 5.5
    return points + 0.05 * torch.randn(count, 2, generator=generator)


SHAPES: Mapping[str, Callable[[int, torch.Generator], Tensor]] = {
    each.__name__: each for each in (moons, checkerboard, rings, squares, spirals)
}


class Points(nn.Module):
    """A network that says of noisy points in which direction the noise lies (v), told the time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 16, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(),
            nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 2),
        )  # fmt: skip

    def forward(self, points: Tensor, time: Tensor) -> Tensor:
        """v of points [n 2] at times [n] of 1000."""
        waves = (time / 1000)[:, None] * 2.0 ** torch.arange(8) * math.pi / 2
        return self.layers(torch.cat([points, waves.sin(), waves.cos()], 1).float())


@dataclass(frozen=True)
class Network:
    """The network as the loop calls it: points are latents of one pixel with two channels."""

    points: Points

    def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
        return self.points(x[:, :, 0, 0], time.to(x))[:, :, None, None]


@dataclass(frozen=True)
class Mixture:
    """The posterior mean for points that are Gaussian around those of a sample [m 2], each as likely."""

    sample: Tensor
    std: float = 0.06
    group: int = 1

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        points, alpha, sigma = x[:, :, 0, 0], float(at.alpha[0]), float(at.sigma[0])
        spread = sigma**2 + (alpha * self.std) ** 2
        shares = (-torch.cdist(points, alpha * self.sample).square() / (2 * spread)).softmax(1)
        centre = shares @ self.sample
        return (centre + alpha * self.std**2 / spread * (points - alpha * centre))[:, :, None, None]


def denoiser_of(name: str, given: argparse.Namespace) -> Denoiser:
    """A denoiser of a shape, which is trained if that is wanted."""
    if given.updates:
        return trained(name, given.updates, given.out)
    return Mixture(SHAPES[name](given.sample, torch.Generator().manual_seed(1)))


def trained(name: str, updates: int, folder: Path) -> Denoiser:
    """A network's denoiser of a shape; what was trained is kept in a file."""
    path, network = folder / f"{name}-{updates}.safetensors", Points()
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        torch.manual_seed(len(name))
        network = Points()
        generator = torch.Generator().manual_seed(1)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
        levels = Schedule.from_config(CONFIG, 1000).now
        with torch.enable_grad():
            for _ in range(updates):
                index = torch.randint(1000, (BATCH,), generator=generator)
                alpha, sigma = levels.alpha[index, None].float(), levels.sigma[index, None].float()
                x0, eps = SHAPES[name](BATCH, generator), torch.randn(BATCH, 2, generator=generator)
                found = network(alpha * x0 + sigma * eps, levels.time[index].float())
                loss = (found - (alpha * eps - sigma * x0)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                rate.step()
        save_file(network.state_dict(), path)
    return NetworkDenoiser(Network(network.eval()), "v_prediction", max_batch=1_000_000)


def told(count: int) -> Conditioning:
    """Nothing."""
    return Conditioning(torch.zeros(count, 1, 1))


def sent(points: Tensor, source: Denoiser, target: Denoiser, steps: int, exact: bool) -> tuple[Inversion, Tensor]:
    """The noise of points [n 2], and where they arrive."""
    run, ids = Schedule.from_config(CONFIG, steps).joined(), [RowId("point", each) for each in range(len(points))]
    invert = exactly_inverted if exact else inverted
    way = invert(source, points[:, :, None, None], run, told(len(points)), ids)
    return way, bridged(target, way, run, told(len(points)))[:, :, 0, 0]


def energy(a: Tensor, b: Tensor) -> float:
    """The energy distance of two samples (Székely & Rizzo 2013), 0 for the same distribution."""
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def measured(pair: tuple[str, str], given: argparse.Namespace) -> dict[str, object]:
    """All numbers of a pair."""
    generator = torch.Generator().manual_seed(2)
    models = [denoiser_of(name, given) for name in pair]
    points, fresh, other = (SHAPES[name](given.points, generator) for name in (pair[0], pair[1], pair[1]))
    row: dict[str, object] = {"pair": " to ".join(pair)}
    arrived = sent(points, models[0], models[1], max(given.steps), False)[1]
    row |= {"there": energy(arrived, fresh), "sample": energy(other, fresh), "apart": energy(points, fresh)}
    for name, exact in (("ddim", False), ("exact", True)):
        errors: dict[str, float] = {}
        for steps in given.steps:
            there = sent(points, models[0], models[1], steps, exact)[1]
            back = sent(there, models[1], models[0], steps, exact)[1]
            errors[str(steps)] = float((back - points).norm(dim=1).mean())
        row[name] = errors
    return row


def picture(pairs: Sequence[tuple[str, str]], given: argparse.Namespace, side: int = 220) -> Image.Image:
    """A row for each pair: the source, its noise, the target, and back at the source."""
    scale, rows = 3, list[Image.Image]()
    for pair in pairs:
        models = [denoiser_of(name, given) for name in pair]
        points = SHAPES[pair[0]](given.drawn, torch.Generator().manual_seed(3))
        way, there = sent(points, models[0], models[1], given.drawn_steps, False)
        back = sent(there, models[1], models[0], given.drawn_steps, False)[1]
        row = Image.new("RGB", (4 * side * scale, side * scale), "white")
        draw = ImageDraw.Draw(row)
        shown = (points, way.state.x[:, :, 0, 0], there, back)
        for column, (cloud, reach) in enumerate(zip(shown, (2.2, 3.3, 2.2, 2.2), strict=True)):
            places = (cloud / reach + 1) / 2 * side * scale
            for (x, y), origin in zip(places.tolist(), points.tolist(), strict=True):
                at, dot = (column * side * scale + x, side * scale - y), 1.1 * scale
                draw.ellipse((at[0] - dot, at[1] - dot, at[0] + dot, at[1] + dot), fill=coloured(origin))
        labels = (pair[0], "noise", pair[1], f"and back ({given.drawn_steps} steps)")
        row = row.resize((4 * side, side), Image.Resampling.LANCZOS)
        for column, label in enumerate(labels):
            ImageDraw.Draw(row).text((column * side + 8, 4), label, fill="black")
        rows.append(row)
    whole = Image.new("RGB", (4 * side, len(rows) * side), "white")
    for number, row in enumerate(rows):
        whole.paste(row, (0, number * side))
    return whole


def coloured(origin: Sequence[float]) -> tuple[int, int, int]:
    """A hue for the direction of a point, paler towards the middle."""
    hue, far = math.atan2(origin[1], origin[0]) / (2 * math.pi) % 1, min(1.0, math.hypot(*origin) / 1.8)
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.35 + 0.65 * far, 0.85 - 0.25 * far)
    return int(255 * red), int(255 * green), int(255 * blue)


def main() -> None:
    """Measure, print, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of networks and numbers")
    parser.add_argument("--plot", type=Path, help="a PNG of what happens to points")
    parser.add_argument("--points", type=int, default=300, help="that are measured")
    parser.add_argument("--drawn", type=int, default=1200, help="points of the picture")
    parser.add_argument("--updates", type=int, default=0, help="of each network; 0 is without networks")
    parser.add_argument("--sample", type=int, default=800, help="points that a mixture is made of")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--drawn-steps", type=int, default=DRAWN_STEPS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    table = [measured(pair, given) for pair in PAIRS]
    (given.out / "ddib.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
    print(json.dumps(table, indent=1))
    if given.plot:
        picture(PAIRS, given).quantize(64).save(given.plot, optimize=True)


if __name__ == "__main__":
    main()
