"""What a render will take, asked on the command line, and renders whose weights are stored in fewer bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import SHORT, Run
from segue.errors import TaskError
from segue.tasks.image import Image
from segue.tasks.outlook import Asked, Load, outlook
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
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
    from segue.models.placement import Placement

    task = Image("a red apple", seed=8)
    plain = task.run(load("emoji", "cpu")).frames[0:1]
    small = task.run(load("emoji", "cpu", placement=Placement(storage="float8"))).frames[0:1]
    assert 0 < (plain - small).abs().mean() < 0.01
