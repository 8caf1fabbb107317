"""What a person gets wrong in a recipe's configuration is said in a line; what the shipped ones say goes together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from segue.cli.main import main
from segue.training.recipes import codec, t2i
from segue.training.run import read_config
from segue.zoo.cards import WEIGHTS

TINY = ("width=8", "encoder_blocks=[0,1,1,1]", "decoder_blocks=[1,1,1,1]", "validation_every=8")
SMALL = ("widths=[32,32]", "text_width=32", "text_layers=1", "vocabulary=560", "positions=8")
SHORT = ("steps=1", "decay=1", "warmup=1", "batch=2")


@pytest.mark.parametrize(
    ("recipe", "override", "said"),
    [
        ("t2i", "steps=-1", "steps: Input should be greater than or equal to 1"),
        ("t2i", "batch=0", "batch: "),
        ("t2i", "log_every=0", "log_every: "),
        ("t2i", "save_every=0", "save_every: "),
        ("t2i", "sheet_every=0", "sheet_every: "),
        ("t2i", "sheet_prompts=[]", "sheet_prompts: "),
        ("t2i", "widths=[33,64]", "widths.0: Input should be a multiple of 32"),
        ("t2i", "widths=[32]", "widths: "),
        ("t2i", "heads=5", "multiples of heads=5"),
        ("t2i", "lr=nan", "lr: "),
        ("t2i", "ema=1.0", "ema: "),
        ("t2i", "vocabulary=100", "vocabulary: "),
        ("t2i", "codec=/nowhere", "no codec in /nowhere"),
        ("t2i", "codec=emojy", 'no embedded model "emojy"'),
        ("t2i", "start=/nowhere", "start=/nowhere is no model"),
        ("t2i", "start=nowhere/x", "start=nowhere/x is no model"),
        ("t2i", "corpus=", "corpus: "),
        ("t2i", "device=cuda:77", "device=cuda:77 cannot be used here"),
        ("t2i", "device=gpu", "device=gpu cannot be used here"),
        ("student", "student_steps=0", "student_steps: "),
        ("codec", "validation_every=1", "validation_every: "),
        ("codec", "validation_every=100000", "validation_every must be at most"),
        ("codec", "decoder_blocks=[1,1]", "must be equally many"),
        ("codec", "latent_noise=-1", "latent_noise: "),
        ("codec", "discriminator_width=0", "discriminator_width: "),
    ],
)
def test_a_mistake_is_a_line(
    recipe: str, override: str, said: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"corpus={corpus}", f"out={tmp_path / 'run'}"]
    if recipe == "t2i":
        given += [f"codec={WEIGHTS / 'emoji' / 'vae'}", *SMALL]
    assert main(["train", recipe, *given, *SHORT, override]) not in (0, 70)
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error, error


def test_the_shipped_recipes_follow_from_one_another(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an empty folder, with what is said on the command line only to be quick."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(corpus, read_config("corpus").out)
    assert main(["train", "codec", *TINY, *SHORT]) == 0
    assert main(["train", "t2i", *SMALL, *SHORT, 'sheet_prompts=["an apple"]', "sheet_steps=1"]) == 0
    mine, taken = (
        folder / "diffusion_pytorch_model.safetensors"
        for folder in (codec.Config().out / "vae", t2i.Config().out / "model" / "vae")
    )
    assert mine.read_bytes() == taken.read_bytes(), "the codec that was just trained"


def test_an_embedded_models_name_stands_for_its_folders() -> None:
    named = t2i.with_folders(read_config("t2i", overrides=["start=emoji", "codec=emoji"]))
    assert (named.start, named.codec) == (WEIGHTS / "emoji", WEIGHTS / "emoji" / "vae")
    plain = t2i.with_folders(read_config("t2i", overrides=["start=", "codec=runs/mine/vae"]))
    assert (plain.start, plain.codec) == (None, Path("runs/mine/vae"))
    assert read_config("codec", overrides=["perceptual="]).perceptual == ""
