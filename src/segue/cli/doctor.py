"""`segue doctor`: what this machine has, what is missing, and whether a render will fit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from segue.cli.fields import verb
from segue.cli.machine import examine
from segue.cli.machine_controls import control_findings
from segue.cli.options import ModelChoice
from segue.errors import TaskError
from segue.tasks.outlook import Asked, Load, outlook
from segue.tasks.sampling import Execution, Sampling

if TYPE_CHECKING:
    from segue.models.forecast import Forecast
    from segue.tasks.outlook import Outlook

MARKS = {"fine": "  ", "missing": "✗ ", "optional": "· "}
TIGHT = 1


@dataclass(frozen=True)
class Checkup:
    """What to look at.

    Args:
        hub: also ask the model hub whether it answers.
        json: print JSON instead of text.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    hub: bool = False
    json: bool = False


@verb
def doctor(checkup: Checkup, model: ModelChoice, sampling: Sampling, execution: Execution, load: Load) -> int:
    """Say what this machine has and what is missing; or, with --model, what a render will take before it runs.

    The exit code is 1 if something is missing, or the render does not fit.
    """
    if (model, sampling, execution, load) == (ModelChoice(), Sampling(), Execution(), Load()):
        return _machine(checkup)
    if checkup.hub:
        raise TaskError("--hub asks whether the hub answers, and goes without a model: leave it out, or the rest")
    if model.lora:
        raise TaskError("--lora is not read for a forecast, since merged it takes nothing more: leave it out")
    if model.preview_decoder is not None:
        raise TaskError(
            "--preview-decoder is not read for a forecast, which is of the model's own decoder: a small one adds a few "
            "MB of weights, and takes less where it decodes; leave it out"
        )
    placement = model.placement()
    asked = Asked(
        model.model, model.device, model.dtype, model.model_config, placement, model.profile, model.prediction
    )
    found = outlook(asked, sampling, execution, load)
    print(json.dumps(as_dict(found)) if checkup.json else described(found))
    return 0 if found.fits else TIGHT


def _machine(checkup: Checkup) -> int:
    findings = [*examine(checkup.hub), *control_findings()]
    missing = [finding for finding in findings if finding.state == "missing"]
    if checkup.json:
        print(json.dumps([asdict(finding) for finding in findings]))
        return 1 if missing else 0
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        advice = f"  → {finding.advice}" if finding.advice else ""
        print(f"{MARKS[finding.state]}{finding.name:{width}}  {finding.found}{advice}")
    print(f"{len(missing)} missing" if missing else "everything that Segue needs is here")
    return 1 if missing else 0


def described(found: Outlook) -> str:
    """For people."""
    forecast = found.forecast
    render = forecast.render
    rows = {"forecast of": f"{found.made}, {_size(forecast)}, steps {render.steps}, {_dtype(found)}"}
    rows |= {
        part.name: f"{_bytes(part.bytes)} of weights ({part.parameters:,} numbers, {part.kind})"
        for part in forecast.parts
    }
    for phase in forecast.phases:
        rows[phase.name] = f"{_bytes(phase.peak)}: {_bytes(phase.weights)} weights, {_bytes(phase.tensors)} at work"
    rows["decoded at once"] = f"up to {render.placement.tile} px" if render.placement.tile else "whole pictures"
    rows["memory"] = f"{_bytes(forecast.peak)} of {_bytes(found.memory.room)} that can be used on {render.device}"
    if forecast.home:
        rows["main memory"] = f"{_bytes(forecast.home)} of {_bytes(found.main.room)}, for weights before they leave it"
    rows["work"] = f"{forecast.flops / 1e12:,.3g} TFLOP in {round(render.all_rows):,} network rows of {_size(forecast)}"
    if forecast.seconds is not None:
        rows["time"] = f"about {_time(forecast.seconds)}, at the speed that was just measured"
    width = max(len(name) for name in rows)
    lines = [f"{name:{width}}  {text}" for name, text in rows.items()]
    if found.fits:
        return "\n".join([*lines, "it fits"])
    if not found.fits_at_home:
        lines.append(f"it does not fit: main memory lacks {_bytes(forecast.home - found.main.room)}")
    if forecast.peak <= found.memory.room:
        return "\n".join(lines)
    advice = [
        f"  {change.options}: {_bytes(change.forecast.peak)}{', which fits' if change.fits else ''}"
        for change in found.changes
    ]
    how = "change this, one on top of the other:" if advice else "and nothing that could be changed helps"
    return "\n".join([*lines, f"it does not fit; {how}", *advice])


def as_dict(found: Outlook) -> dict[str, Any]:
    """For machines; all sizes are bytes."""
    forecast = found.forecast
    phases = [
        {"name": one.name, "peak": one.peak, "weights": one.weights, "tensors": one.tensors, "calls": one.calls}
        for one in forecast.phases
    ]
    changes = [
        {"options": change.options, "peak": change.forecast.peak, "fits": change.fits} for change in found.changes
    ]
    return {
        "made": found.made,
        "steps": forecast.render.steps,
        "dtype": _dtype(found),
        "size": list(forecast.render.size),
        "device": str(forecast.render.device),
        "parts": [asdict(part) for part in forecast.parts],
        "phases": phases,
        "loading": forecast.loading,
        "peak": forecast.peak,
        "room": found.memory.room,
        "home": forecast.home,
        "main_room": found.main.room,
        "rows": forecast.render.all_rows,
        "tile": forecast.render.placement.tile,
        "flops": forecast.flops,
        "seconds": forecast.seconds,
        "fits": found.fits,
        "changes": changes,
    }


def _dtype(found: Outlook) -> str:
    return str(found.dtype).removeprefix("torch.")


def _size(forecast: Forecast) -> str:
    width, height = forecast.render.size
    return f"{width}x{height}"


def _bytes(count: float) -> str:
    """In binary units, as memory is sold."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:g} bytes"


def _time(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"
