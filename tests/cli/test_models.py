"""`segue models`: what is on this machine, readable, whatever lies there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from tiny_upscaler import write_upscaler

from cli.conftest import Run
from dots import FAST
from segue.zoo import cards


@pytest.fixture
def zoo(embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models, one derived from the other, and a cache of the hub with nothing in it."""
    (embedded / "card.md").write_text("# dots\n", encoding="utf-8")
    fast = embedded.with_name("dots-fast")
    fast.mkdir()
    (fast / "card.toml").write_text(FAST, encoding="utf-8")
    (fast / "student.safetensors").write_bytes(b"x" * 5000)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SEGUE_MODEL", "dots")
    monkeypatch.setenv("COLUMNS", "80")
    return embedded.parent


def cached(root: Path, name: str, model: Path) -> Path:
    """A model in the hub's cache, as its client lays it out."""
    sha = "0123456789abcdef0123456789abcdef01234567"
    repository = root / f"models--{name.replace('/', '--')}"
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(sha, encoding="utf-8")
    snapshot = repository / "snapshots" / sha
    for number, file in enumerate(path for path in sorted(model.rglob("*")) if path.is_file()):
        blob = repository / "blobs" / f"{number:040x}"
        shutil.copyfile(file, blob)
        link = snapshot / file.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return snapshot


def test_a_line_says_what_matters(run: Run, zoo: Path) -> None:
    answer = run("models")
    assert (answer.code, answer.err) == (0, "")
    said = " ".join(answer.out.split())
    assert "dots (used unless --model says otherwise) Draws dots on a plate" in said
    assert "Stable Diffusion, 64x32, 2 things by 3 names, " in said
    assert "Stable Diffusion, LoRA of dots, 64x32, 2 things by 3 names, 5.18 kB, Apache-2.0" in said
    assert all(len(line) <= 80 for line in answer.out.splitlines())


def test_one_model_is_described(run: Run, zoo: Path) -> None:
    answer = run("models", "dots")
    said = " ".join(answer.out.split())
    for part in (
        "resolution 64x32",
        "defaults 9 steps, guidance 3.5, solver dpmpp_2m",
        "licence MIT",
        "colours red, green",
        "knows red apple, cat, tree-ripened pear of the garden",
        f"card {zoo / 'dots' / 'card.md'}",
    ):
        assert part in said
    assert "dots-fast" not in said
    assert "defaults 2 steps, guidance 1, solver lcm" in " ".join(run("models", "dots-fast").out.split())
    assert run("models", "dots", "dots-fast").out.count("resolution") == 2


def test_a_folder_is_described_by_its_path(run: Run, zoo: Path, checkpoint: Path) -> None:
    assert "resolution  64x64" in run("models", checkpoint).out


def test_machines_get_the_same(run: Run, zoo: Path) -> None:
    first, second = run("models", "--json").json["models"]
    assert (first["name"], first["origin"], first["default"]) == ("dots", "embedded", True)
    assert (first["size"], first["concepts"], first["vocabulary"][:2]) == ([64, 32], 2, ["red apple", "cat"])
    assert first["words"] == {"colours": ["red", "green"]}
    assert (second["base"], second["bytes"], second["steps"]) == ("dots", 5000 + len(FAST.encode()), 2)
    assert run("models", "dots-fast", "--json").json == {"models": [second]}


def test_an_upscaler_says_by_how_much(run: Run, zoo: Path) -> None:
    write_upscaler(zoo / "dots-x4", vae="tiny", shared=True)
    lines = 'name = "dots-x4"\nsummary = "x"\nlicence = "MIT"\nfactor = 4\ntext = "dots"\n[defaults]\nnoise_level = 5\n'
    (zoo / "dots-x4" / "card.toml").write_text(lines, encoding="utf-8")
    said = " ".join(run("models").out.split())
    assert "dots-x4 x Stable Diffusion Upscale, text of dots, enlarges 4 times, 64x64, " in said
    described = " ".join(run("models", "dots-x4").out.split())
    assert "enlarges 4 times" in described and "noise level 5" in described
    (known,) = json.loads(run("models", "dots-x4", "--json").out)["models"]
    assert (known["factor"], known["text"], known["noise_level"], known["problem"]) == (4, "dots", 5, "")


def test_an_unknown_model_is_an_error_that_names_the_known_ones(run: Run, zoo: Path) -> None:
    answer = run("models", "vegetables")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == ('segue: error: there is no model "vegetables" on this machine (there are: dots, dots-fast)\n')


def test_a_broken_card_hides_no_other(run: Run, zoo: Path) -> None:
    (zoo / "dots-fast" / "student.safetensors").unlink()
    (zoo / "broken").mkdir()
    (zoo / "broken" / "card.toml").write_text("name = ", encoding="utf-8")
    answer = run("models")
    assert answer.code == 1
    assert "dots (used" in answer.out
    first, second = answer.err.splitlines()
    assert first.startswith(f"segue: error: {zoo / 'broken' / 'card.toml'} is no model card")
    assert "student.safetensors is missing" in second
    machines = run("models", "--json")
    assert [model["name"] for model in machines.json["models"]] == ["dots"]
    assert machines.err.count("\n") == 2
    assert run("models", "dots").code == 0
    assert "is no model card" in run("models", "broken").err


def test_models_of_the_hub_are_listed(run: Run, zoo: Path, checkpoint: Path, tmp_path: Path) -> None:
    full = cached(tmp_path / "hub", "some/model", checkpoint)
    (full / "README.md").write_text("---\ntags: [x]\nlicense: mit\n---\nlicense: none\n", encoding="utf-8")
    part = cached(tmp_path / "hub", "some/part", checkpoint)
    (part / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    other = cached(tmp_path / "hub", "some/sana", checkpoint)
    (other / "model_index.json").unlink()
    (other / "model_index.json").write_text('{"_class_name": "SanaPipeline"}', encoding="utf-8")
    text = cached(tmp_path / "hub", "some/language-model", checkpoint / "text_encoder")
    assert (text / "model.safetensors").exists()
    listed = {model["name"]: model for model in run("models", "--json").json["models"] if model["origin"] == "hub"}
    assert set(listed) == {"some/model", "some/part", "some/sana"}
    assert [listed["some/model"][key] for key in ("family", "size", "licence", "problem")] == [
        "Stable Diffusion",
        [64, 64],
        "mit",
        "",
    ]
    assert listed["some/model"]["bytes"] > listed["some/part"]["bytes"] > 0
    assert listed["some/part"]["problem"] == "not all of it is here"
    assert (listed["some/sana"]["family"], listed["some/sana"]["problem"]) == ("Sana", "which Segue does not read")
    answer = run("models")
    assert "These are in the cache of the hub:" in answer.out
    assert all(len(line) <= 80 for line in answer.out.splitlines())
    assert "licence     mit" in run("models", "some/model").out


def test_the_folder_of_the_environment_is_listed(
    run: Run, zoo: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUE_MODEL", str(checkpoint))
    assert f"SEGUE_MODEL names this one:\n\n{checkpoint} (used" in run("models").out


def test_a_derived_folder_of_the_environment_is_listed(
    run: Run, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a card and a LoRA, and no weights of its own."""
    mine = Path(shutil.copytree(zoo / "dots-fast", tmp_path / "mine"))
    monkeypatch.setenv("SEGUE_MODEL", str(mine))
    said = run("models").out
    assert f"SEGUE_MODEL names this one:\n\n{mine} (used" in said
    assert said.count("Stable Diffusion, LoRA of dots, 64x32") == 2
    assert all(len(line) <= 80 for line in said.splitlines() if str(mine) not in line)
    (mine / "card.toml").write_text("name = ", encoding="utf-8")
    broken = run("models")
    assert (broken.code, broken.err.count("\n")) == (1, 1)
    assert f"{mine / 'card.toml'} is no model card" in broken.err


def test_nothing_at_all(run: Run, zoo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cards, "WEIGHTS", tmp_path / "nothing")
    assert "no model comes with this installation" in run("models").out
    assert run("models", "--json").json["models"] == []
