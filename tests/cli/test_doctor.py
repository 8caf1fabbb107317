"""What a render will take, asked on the command line, and renders whose weights are stored in fewer bits."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from tiny import write_model
from tiny_flow import write_flux, write_sd3
from tiny_upscaler import write_upscaler
from tiny_xl import write_xl

from cli.conftest import SHORT, Run
from segue.cli.doctor import described
from segue.errors import CheckpointError, ModelError, TaskError
from segue.models import capacity, kinds, loading
from segue.models.annotate import depth
from segue.models.capacity import Memory
from segue.models.control_files import USUAL
from segue.models.placement import Placement
from segue.tasks.image import Image
from segue.tasks.outlook import Asked, Load, Outlook, outlook
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from segue.zoo.cards import names
from segue.zoo.load import load

FEW = ["--steps", "4", "--max-batch", "4"]


def test_a_render_is_forecast(run: Run, checkpoint: Path) -> None:
    answer = run("doctor", "--model", checkpoint, "--frames", "9", *FEW, "--json")
    said = answer.json
    assert answer.code == 0
    assert said["fits"]
    assert said["changes"] == []
    assert said["size"] == [64, 64]
    parts = {part["name"]: part["bytes"] for part in said["parts"]}
    peaks = {phase["name"]: phase["peak"] for phase in said["phases"]}
    assert set(parts) == {"unet", "text_encoder", "vae"}
    assert said["peak"] == max(peaks.values()) > sum(parts.values())
    assert said["seconds"] > 0
    smaller = run("doctor", "--model", checkpoint, "--frames", "9", *FEW, "--storage", "float8", "--json").json
    assert {part["name"]: part["bytes"] for part in smaller["parts"]}["unet"] < parts["unet"] / 2


def test_what_to_change_is_said(run: Run, checkpoint: Path) -> None:
    line = ["doctor", "--model", checkpoint, "--frames", "99", "--size", "256x256"]
    peak = run(*line, "--json").json["peak"]
    memory = f"{peak * 0.9 / 2**30:.6f}"
    answer = run(*line, "--memory", memory)
    assert answer.code == 1
    assert "it does not fit; change this, one on top of the other:\n  --max-batch " in answer.out
    assert answer.out.rstrip().endswith(", which fits")
    option, value = answer.out.rstrip().splitlines()[-1].split(":")[0].split()
    assert run(*line, "--memory", memory, option, value).code == 0
    hopeless = run(*line, "--memory", "0.000001")
    assert hopeless.code == 1
    assert "--offload" not in hopeless.out
    assert "which fits" not in hopeless.out


def test_the_rows_are_those_of_a_run(checkpoint: Path) -> None:
    model = load(checkpoint, "cpu")
    sampling, execution = Sampling(steps=4, guidance_scale=(3.0,)), Execution(max_batch=4)
    found = outlook(Asked(checkpoint, "cpu"), sampling, execution, timed=False)
    assert found.forecast.render.all_rows == 4 * 2
    film = Transition(("a", "b"), seconds=1, fps=12, sampling=sampling)
    record = film.run(model, execution).provenance
    assert record is not None
    found = outlook(Asked(checkpoint, "cpu"), sampling, execution, Load(frames=12), timed=False)
    assert found.forecast.render.all_rows == pytest.approx(record.record["scores"]["rows"], rel=0.25)
    unguided = outlook(Asked(checkpoint, "cpu"), Sampling(steps=4, guidance_scale=(1.0,)), timed=False)
    assert unguided.forecast.render.all_rows == 4


def test_what_cannot_be_asked_is_refused(run: Run, checkpoint: Path) -> None:
    assert "there is no embedded model" in run("doctor", "--model", "nowhere").err
    wrong = run("doctor", "--model", checkpoint, "--size", "60x64")
    assert wrong.code == 2
    assert "size must be a multiple of 8 on both sides; got 60x64" in wrong.err
    assert "makes room on a graphics card" in run("image", "a", "--model", checkpoint, "--offload", "model").err
    assert run("doctor", "--model", checkpoint, "--frames", "0").code == 2
    with pytest.raises(TaskError, match="memory must be above 0 GiB"):
        Load(memory=0)


@pytest.mark.parametrize("name", names())
def test_every_embedded_model_is_forecast(name: str) -> None:
    found = outlook(Asked(name, "cpu"), timed=False)
    model = load(name, "cpu")
    held = {name: sum(weight.numel() for weight in part.parameters()) for name, part in model.parts.items()}
    assert {part.name: part.parameters for part in found.forecast.parts} == held
    render, usual = found.forecast.render, model.defaults
    assert (render.size, render.steps, render.began) == (usual.size, usual.steps, usual.guidance_start)
    assert render.terms == (1 if usual.guidance_scale == 1 else 2)
    assert ("segue upscale" in found.made) == (model.upscaling is not None)


def changed(folder: Path, file: str, **entries: Any) -> Path:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
    return folder


SCHEDULER = "scheduler/scheduler_config.json"
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "sd": write_model,
    "full LCM": lambda folder: changed(
        write_model(folder, time_cond_proj_dim=8), SCHEDULER, _class_name="LCMScheduler"
    ),
    "sdxl": write_xl,
    "turbo": lambda folder: changed(
        write_xl(folder, vae="tiny"),
        SCHEDULER,
        _class_name="EulerAncestralDiscreteScheduler",
        timestep_spacing="trailing",
    ),
    "upscaler": write_upscaler,
    "sd3": write_sd3,
    "sd3 without T5": lambda folder: write_sd3(folder, with_t5=False),
    "flux dev": write_flux,
    "flux schnell": lambda folder: write_flux(folder, embeds=False, dynamic=False),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_is_forecast_is_what_the_model_is_used_with(kind: str, tmp_path: Path) -> None:
    folder = FAMILIES[kind](tmp_path / "model")
    model = load(folder, "cpu")
    found = outlook(Asked(folder, "cpu"), timed=False).forecast
    usual = model.defaults
    assert (found.render.size, found.render.steps) == (usual.size, usual.steps)
    terms = 1 if usual.guidance_scale == 1 or model.denoiser.embeds_guidance else 2
    assert found.render.terms == terms
    assert found.render.all_rows == terms * usual.steps
    assert {part.name for part in found.parts} == set(model.parts)
    odd = Sampling(size=(usual.size[0] + model.grid // 2, usual.size[1]))
    with pytest.raises(TaskError, match=f"size must be a multiple of {model.grid} on both sides"):
        outlook(Asked(folder, "cpu"), odd, timed=False)


def test_a_profile_is_forecast_and_refused_as_it_is_loaded(checkpoint: Path) -> None:
    for source in (checkpoint, "emoji"):
        with pytest.raises(ModelError, match="profile must be one of"):
            outlook(Asked(source, "cpu", profile="nonsense"), timed=False)
    render = outlook(Asked(checkpoint, "cpu", profile="lcm"), timed=False).forecast.render
    assert (render.steps, render.terms) == (4, 1)
    for profile in ("lcm", "turbo"):
        with pytest.raises(ModelError, match=f"profile '{profile}' is for"):
            outlook(Asked("emoji", "cpu", profile=profile), timed=False)


def test_a_card_is_forecast_in_its_dtype_and_beside_main_memory(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flux, card = write_flux(tmp_path / "model"), torch.device("cuda")
    plenty, nothing = Memory(1 << 34, 1 << 34, 0), Memory(1 << 34, 0, 0)

    def find_device(device: str | None) -> torch.device:
        return card

    def memory_of(device: torch.device) -> Memory:
        return plenty if device == card else nothing

    monkeypatch.setattr(loading, "find_device", find_device)
    monkeypatch.setattr(capacity, "memory_of", memory_of)

    def look(folder: Path, **how: Any) -> Outlook:
        return outlook(Asked(folder, **how), timed=False)

    assert look(flux).dtype == look(flux, dtype="auto").dtype == torch.bfloat16
    assert look(checkpoint).dtype == torch.float16
    plain, stored = look(checkpoint), look(checkpoint, placement=Placement(storage="float8"))
    assert plain.fits and plain.forecast.home == 0
    assert stored.forecast.home == stored.forecast.loading > 0
    assert stored.forecast.peak < stored.memory.room
    assert not stored.fits
    assert "main memory lacks" in described(stored)
    waits = next(part for part in look(flux).forecast.parts if part.name == "text_encoder_2")
    assert look(flux).forecast.home == waits.bytes > 0
    assert not look(flux).fits


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--profile nonsense", "profile must be one of"),
        ("--solver nonsense", "nonsense"),
        ("--offload model", "makes room on a graphics card"),
        ("--compile graphs", "records the kernels of CUDA"),
        ("--lora style.safetensors", "--lora is not read for a forecast"),
        ("--hub", "--hub asks whether the hub answers"),
        ("--memory inf", "memory must be above 0 GiB"),
        ("--memory nan", "memory must be above 0 GiB"),
    ],
)
def test_nothing_that_is_asked_is_ignored(run: Run, checkpoint: Path, line: str, message: str) -> None:
    answer = run("doctor", "--model", checkpoint, *line.split())
    assert answer.code in (1, 2)
    assert message in answer.err


def test_a_prediction_that_cannot_be_is_refused(tmp_path: Path) -> None:
    folder = write_flux(tmp_path / "model")
    with pytest.raises(ModelError, match="predicts the velocity of a flow"):
        outlook(Asked(folder, "cpu", prediction="epsilon"), timed=False)


@pytest.mark.parametrize(
    ("file", "entries"),
    [
        ("unet/config.json", {"down_block_types": ["Nope", "Nope"]}),
        ("unet/config.json", {"block_out_channels": "x"}),
        ("unet/config.json", {"sample_size": None}),
        ("text_encoder/config.json", {"num_attention_heads": 7}),
        ("model_index.json", {"unet": "UNet2DConditionModel"}),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny", "x"]}),
        ("model_index.json", {"_class_name": "SomethingElse"}),
    ],
)
def test_damaged_configurations_are_named(checkpoint: Path, tmp_path: Path, file: str, entries: dict[str, Any]) -> None:
    folder = changed(Path(shutil.copytree(checkpoint, tmp_path / "model")), file, **entries)
    with pytest.raises(CheckpointError):
        outlook(Asked(folder, "cpu"), timed=False)


def test_weights_in_float8_are_repeated(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    film = ["transition", "a", "b", "--model", checkpoint, "--steps", "2", *SHORT]
    assert run(*film, "-o", "plain.gif").code == 0
    assert run(*film, "-o", "small.gif", "--storage", "float8", "--tile", "320").code == 0
    records = {name: json.loads((tmp_path / f"{name}.json").read_text())["model"] for name in ("plain", "small")}
    assert [records[name]["storage"] for name in ("plain", "small")] == [None, "float8"]
    assert records["small"]["tile"] == 320
    assert records["plain"]["tile"] > 320
    assert records["plain"]["sha256"] != records["small"]["sha256"]
    assert run("rerun", "small.json", "-o", "again.gif").code == 0
    assert (tmp_path / "again.gif").read_bytes() == (tmp_path / "small.gif").read_bytes()
    assert (tmp_path / "plain.gif").read_bytes() != (tmp_path / "small.gif").read_bytes()
    refused = run("rerun", "plain.json", "-o", "other.gif", "--storage", "float8")
    assert refused.code != 0
    assert "--storage" in refused.err


def test_float8_keeps_the_picture_of_the_embedded_model() -> None:
    task = Image("a red apple", seed=8)
    plain = task.run(load("emoji", "cpu")).frames[0:1]
    small = task.run(load("emoji", "cpu", placement=Placement(storage="float8"))).frames[0:1]
    assert 0 < (plain - small).abs().mean() < 0.01


def snapshot(cache: Path, name: str, *files: str) -> None:
    """A repository of the hub's cache, as huggingface_hub lays it out."""
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0" * 40)
    folder = home / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_bytes(b"{}")


def found(run: Run, name: str) -> dict[str, str]:
    return next(finding for finding in run("doctor", "--json").json if finding["name"] == name)


def test_controls_and_annotators_are_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come along, those that are in the hub's cache as a whole, and what to do about the others."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("SEGUE_MEDIAPIPE", raising=False)
    snapshot(tmp_path, USUAL[kinds.SD1]["depth"], "config.json", "diffusion_pytorch_model.safetensors")
    snapshot(tmp_path, USUAL[kinds.SD1]["canny"], "config.json")
    own = found(run, "controls of emoji")
    assert own["state"] == "fine" and "softedge" in own["found"] and "emoji-control" in own["found"]
    usual = found(run, "controls of Stable Diffusion 1.x")
    assert usual["state"] == "optional" and usual["found"].startswith(
        "on this machine: depth; not here: canny, softedge"
    )
    assert "--control canny+FOLDER" in usual["advice"]
    assert "lineart" in found(run, "annotators")["found"]
    assert found(run, "annotator depth")["state"] == found(run, "annotator pose")["state"] == "optional"
    snapshot(tmp_path, depth.USUAL, "config.json", "model.safetensors")
    assert found(run, "annotator depth")["state"] == "fine"
    monkeypatch.setenv("SEGUE_MEDIAPIPE", str(tmp_path / "no-python"))
    pose = found(run, "annotator pose")
    assert pose["state"] == "missing" and "no interpreter" in pose["found"] and "unset" in pose["advice"]
    monkeypatch.setenv("SEGUE_MEDIAPIPE", sys.executable)
    assert found(run, "annotator pose")["state"] == "fine"
