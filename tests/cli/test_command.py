"""What the verbs make, print and leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.conftest import SHORT, Run
from models.ldm_layout import to_ldm
from models.tiny import write_model
from segue.cli import machine
from segue.cli.fields import flags, summary
from segue.cli.main import VERBS
from segue.cli.options import ModelChoice, Output
from segue.media import read
from segue.tasks.branching import Branching
from segue.tasks.image import Image
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition


def test_image_writes_a_picture_and_its_record(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    answer = run("image", "a red apple", "--model", checkpoint, "--steps", "2", "--seed", "5")
    assert (answer.code, answer.out.split()[:2]) == (0, ["a-red-apple.png", "64x64;"])
    assert read(tmp_path / "a-red-apple.png").size == (64, 64)
    record = json.loads((tmp_path / "a-red-apple.json").read_text("utf-8"))
    assert (record["fields"]["seed"], record["fields"]["sampling"]["steps"]) == (5, 2)
    assert "the result will be a-red-apple.png" in answer.err


def test_a_name_that_nobody_chose_replaces_nothing(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    line = ["image", "a cat", "--model", checkpoint, "--steps", "1"]
    for seed in (1, 2):
        assert run(*line, "--seed", str(seed)).code == 0
    pictures = [(tmp_path / name).read_bytes() for name in ("a-cat.png", "a-cat-2.png")]
    assert pictures[0] != pictures[1]


def test_transition_prints_one_json_object(run: Run, film: list[str], tmp_path: Path) -> None:
    answer = run(*film, *SHORT, "-o", "x.mp4", "--json", "--tree", "tree.svg")
    assert answer.code == 0
    result = answer.json
    assert (result["path"], result["record"], result["complete"]) == ("x.mp4", "x.json", True)
    assert (result["frames"], result["fps"], result["seconds"]) == (8, 20.0, 0.4)
    assert result["scores"]["native_frames"] == 8
    assert len(read(tmp_path / "x.mp4")) == 8
    labels = [node.text for node in ElementTree.parse(tmp_path / "tree.svg").iter() if node.tag.endswith("text")]
    assert {"a red apple", "a cat"} <= set(labels)


def test_result_line_and_stages(run: Run, film: list[str]) -> None:
    answer = run(*film, *SHORT, "-o", "x.webm")
    assert answer.out.startswith("x.webm  64x64, 8 frames, 0.4 s, 8 native (100%), largest step ")
    assert answer.out.count("\n") == 1
    stages = answer.err.splitlines()
    assert stages[0] == "segue: loading the model"
    assert stages[-1] == "segue: writing"
    assert len(stages) == len(set(stages))


def test_quiet_says_nothing(run: Run, film: list[str]) -> None:
    answer = run(*film, *SHORT, "-o", "x.mp4", "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


@pytest.mark.parametrize("crf", [[], ["--crf", "30"]])
def test_rerun_gives_the_same_bytes(crf: list[str], run: Run, film: list[str], tmp_path: Path) -> None:
    assert run(*film, *SHORT, "-o", "x.mp4", *crf).code == 0
    answer = run("rerun", "x.json", "-o", "y.mp4", "--json")
    assert answer.code == 0
    assert answer.json["scores"]["frames"] == 8
    assert "warning" not in answer.err
    assert (tmp_path / "y.mp4").read_bytes() == (tmp_path / "x.mp4").read_bytes()
    assert (tmp_path / "y.json").read_bytes() == (tmp_path / "x.json").read_bytes()


def test_rerun_says_what_is_not_as_it_was(run: Run, film: list[str], tmp_path: Path) -> None:
    run(*film, *SHORT, "-o", "x.mp4")
    record = json.loads((tmp_path / "x.json").read_text("utf-8"))
    record["versions"]["torch"] = "1.0"
    (tmp_path / "x.json").write_text(json.dumps(record), encoding="utf-8")
    answer = run("rerun", "x.json")
    assert answer.code == 0
    assert "warning: torch was 1.0, is " in answer.err
    assert answer.out.startswith("x-rerun.mp4")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("image", [Image, ModelChoice, Execution, Output]), ("transition", [Transition, ModelChoice, Execution, Output])],
)
def test_help_lists_every_field(name: str, kinds: list[type[Any]], run: Run) -> None:
    answer = run(name, "--help")
    assert answer.code == 0
    for flag in (flag for kind in kinds for flag in flags(kind, ())):
        shown = flag.name.upper() if flag.is_positional else f"--{flag.name.replace('_', '-')} "
        assert shown in answer.out


def test_help_shows_what_belongs_together(run: Run) -> None:
    """Each dataclass has a part of its own, the task's before those of model and machine."""
    parts = [summary(kind) for kind in (Transition, Sampling, Branching, ModelChoice, Execution, Output)]
    found = [line for line in run("transition", "--help").out.splitlines() if line.startswith("╭")]
    places = [next(i for i, line in enumerate(found) if part in line) for part in parts]
    assert places == sorted(places)


def test_help_lists_every_verb(run: Run) -> None:
    answer = run("--help")
    assert all(f"{name} " in answer.out for name in VERBS)


@pytest.mark.parametrize("arguments", [[], *([name] for name in VERBS)])
def test_help_is_quick(arguments: list[str]) -> None:
    """By what is loaded, as time depends on the machine."""
    code = (
        "import sys; from segue.cli.main import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'numpy', 'diffusers', 'transformers', 'pydantic', 'av'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments, "--help"], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_doctor_says_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ENCODERS", {"libx264": ".mp4", "no-such-codec": ".xyz"})
    answer = run("doctor", "--json")
    states = {finding["name"]: finding["state"] for finding in answer.json}
    assert answer.code == 1
    assert (states["video .mp4"], states["video .xyz"], states["torch"]) == ("fine", "missing", "fine")
    assert all(finding["advice"] for finding in answer.json if finding["state"] == "missing")
    text = run("doctor")
    assert text.code == 1
    assert "no no-such-codec in PyAV  → pip install" in text.out


def test_doctor_is_content_with_a_whole_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(hub: bool) -> Iterator[machine.Finding]:
        yield machine.Finding("python", "fine", "3.11")

    monkeypatch.setattr("segue.cli.doctor.examine", whole)
    monkeypatch.setattr("segue.cli.doctor.control_findings", lambda: iter(()))
    answer = run("doctor")
    assert (answer.code, answer.out.splitlines()[-1]) == (0, "everything that Segue needs is here")


def test_doctor_asks_the_hub_only_when_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "HUB", "http://127.0.0.1:9")
    for extra, found in [([], "not asked"), (["--hub"], "does not answer")]:
        findings = {finding["name"]: finding["found"] for finding in run("doctor", "--json", *extra).json}
        assert found in findings["model hub"]


def test_train_copies_a_recipe(run: Run, tmp_path: Path) -> None:
    assert run("train", "--copy", "t2i", "my.py").out.split() == ["my.py", "my.toml"]
    assert "class Config" in (tmp_path / "my.py").read_text("utf-8")
    again = run("train", "--copy", "t2i", "my.py")
    assert (again.code, again.err.count("\n")) == (1, 1)


def test_a_terminal_of_another_alphabet(tmp_path: Path) -> None:
    code = "import sys; from segue.cli.main import main; sys.exit(main())"
    line = [sys.executable, "-c", code, "doctor"]
    done = subprocess.run(line, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode in (0, 1)
    assert b"python" in done.stdout


def test_no_verb_shows_the_help(run: Run) -> None:
    answer = run()
    assert answer.code == 0
    assert "Usage: segue" in answer.out


def test_a_fault_of_segue_is_one_line(run: Run, film: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(Transition, "run", broken)
    answer = run(*film, *SHORT)
    assert answer.code == 70
    assert "boom" in answer.err.splitlines()[-1]
    assert "Traceback" not in answer.err
    monkeypatch.setenv("SEGUE_TRACEBACK", "1")
    assert "Traceback" in run(*film, *SHORT).err


def test_a_rerun_tells_other_tiles_and_takes_what_cannot_be_compiled_as_it_is(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("image", "a", "--model", checkpoint, "--steps", "1", "--tile", "320", "-o", "x.png").code == 0
    assert "warning" not in run("rerun", "x.json", "-o", "same.png").err
    answer = run("rerun", "x.json", "-o", "other.png", "--tile", "384")
    assert "decoded in tiles of up to 320 pixels, now of 384" in answer.err
    assert run("rerun", "x.json", "-o", "none.png", "--tile", "0").code == 1
    record = json.loads((tmp_path / "x.json").read_text())
    record["model"]["compile"] = "blocks"
    (tmp_path / "x.json").write_text(json.dumps(record))
    monkeypatch.setenv("CXX", "no-such-compiler")
    answer = run("rerun", "x.json", "-o", "plain.png")
    assert answer.code == 0
    assert "ran compiled (blocks), now uncompiled" in answer.err
    assert run("rerun", "x.json", "-o", "plain.png", "--compile", "blocks").code == 1


def test_a_rerun_finds_the_loras_that_were_used(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v"
    width = load_file(checkpoint / "unet" / "diffusion_pytorch_model.safetensors")[f"{layer[5:]}.weight"].shape[0]
    down, up = torch.randn(2, width), torch.randn(width, 2)
    factors = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    save_file(factors, tmp_path / "style.safetensors")
    plain = ["image", "a boat", "--model", str(checkpoint), "--steps", "3"]
    assert run(*plain, "-o", "plain.png").code == 0
    assert run(*plain, "--lora", "style.safetensors=0.5", "-o", "x.png").code == 0
    again = run("rerun", "x.json", "-o", "again.png")
    assert again.code == 0, again.err
    first, second, without = ((tmp_path / name).read_bytes() for name in ("x.png", "again.png", "plain.png"))
    assert first == second != without
    (tmp_path / "style.safetensors").unlink()
    lost = run("rerun", "x.json", "-o", "lost.png")
    assert lost.code == 1
    assert "style.safetensors" in lost.err


def test_a_rerun_finds_the_curve_that_a_lora_followed(run: Run, film: list[str], tmp_path: Path) -> None:
    layer, draw = (
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0",
        torch.Generator().manual_seed(0),
    )
    factors = {f"{layer}.lora_{side}.weight": torch.randn(32, 32, generator=draw) for side in ("A", "B")}
    save_file(factors, tmp_path / "style.safetensors")
    assert run(*film, *SHORT, "--lora", "style.safetensors=0s:0, 1s:2", "-o", "x.gif").code == 0
    assert run(*film, *SHORT, "--lora", "style.safetensors=0s:0, 1s:0.5", "-o", "other.gif").code == 0
    again = run("rerun", "x.json", "-o", "again.gif")
    assert again.code == 0, again.err
    first, second, other = ((tmp_path / name).read_bytes() for name in ("x.gif", "again.gif", "other.gif"))
    assert first == second != other


def test_a_rerun_knows_what_a_single_file_was_told(run: Run, tmp_path: Path) -> None:
    """A file of the layout of 2.x does not say what it predicts, nor the folder where its configurations lie."""
    source = write_model(
        tmp_path / "two", prediction="v_prediction", length=24, use_linear_projection=True, attention_head_dim=(2, 4)
    )
    to_ldm(source, tmp_path / "two.safetensors", text="open_clip")
    told = ["--model-config", "two", "--prediction", "epsilon"]
    made = run("image", "a boat", "--model", "two.safetensors", *told, "--steps", "3", "-o", "x.png")
    assert made.code == 0, made.err
    record = json.loads((tmp_path / "x.json").read_text("utf-8"))["model"]
    assert (record["name"], record["config"]) == (str(tmp_path / "two.safetensors"), str(tmp_path / "two"))
    assert record["prediction"] == "epsilon"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.chdir(elsewhere)  # the fixture goes back
    again = run("rerun", "../x.json", "-o", "again.png")
    assert again.code == 0, again.err
    assert (elsewhere / "again.png").read_bytes() == (tmp_path / "x.png").read_bytes()
    other = run("rerun", "../x.json", "--prediction", "v_prediction", "-o", "other.png")
    assert other.code == 2
    assert "predicts v_prediction" in other.err
    assert not (elsewhere / "other.png").exists()


def test_a_rerun_in_another_format_leaves_the_quality_to_it(run: Run, film: list[str], tmp_path: Path) -> None:
    assert run(*film, *SHORT, "--crf", "30", "-o", "x.mp4").code == 0
    for name, crf in (("y.gif", None), ("y.webm", None), ("y.mp4", 30)):
        again = run("rerun", "x.json", "-o", name)
        assert again.code == 0, again.err
        assert json.loads((tmp_path / "y.json").read_text("utf-8"))["output"]["crf"] == crf


def test_a_lora_is_given_once(run: Run, checkpoint: Path) -> None:
    twice = ["--lora", "style.safetensors=0.5", "--lora", "./style.safetensors"]
    answer = run("image", "a boat", "--model", str(checkpoint), *twice)
    assert answer.code == 2
    assert "style.safetensors is given twice" in answer.err
