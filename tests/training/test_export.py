"""Parts are read without the network and without pickles, and written so that a reader never sees half of them."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from transformers import CLIPTextConfig, CLIPTextModel

from segue.errors import CheckpointError, ModelNotFoundError, TrainingError, UnsafeFileError
from segue.training.export import load_codec, load_part, save_codec
from segue.training.folders import replaced
from segue.training.tokenizer import train_tokenizer

WIDTHS: dict[str, Any] = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
SMALL_TEXT: dict[str, Any] = {
    "vocab_size": 8,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def tiny() -> AutoencoderTiny:
    return AutoencoderTiny(num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), **WIDTHS)


@pytest.fixture
def vae(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save_codec(tiny(), 0.5, tmp_path / "vae")


def test_what_was_saved_comes_back_and_can_learn(vae: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain, codec = tiny().state_dict(), load_codec(vae)
    assert codec.config["scaling_factor"] == 0.5
    assert all(
        value.dtype == torch.float32 and value.equal(plain[name].half()) for name, value in codec.state_dict().items()
    )
    assert all(parameter.requires_grad for parameter in codec.parameters())
    text = CLIPTextModel(CLIPTextConfig(**SMALL_TEXT))
    text.save_pretrained(tmp_path / "text")
    found = load_part(CLIPTextModel, tmp_path / "text").state_dict()
    assert all(found[name].equal(value) for name, value in text.state_dict().items())


def test_a_pickle_is_never_opened(vae: Path) -> None:
    weights = vae / "diffusion_pytorch_model.safetensors"
    torch.save(load_codec(vae).state_dict(), vae / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(UnsafeFileError, match="pickle"):
        load_codec(vae)


def test_what_is_not_there_is_not_looked_for_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match="no codec in nowhere/x"):
        load_codec(Path("nowhere/x"))
    with pytest.raises(ModelNotFoundError, match="nowhere/x"):
        load_part(CLIPTextModel, Path("nowhere/x"))


def test_a_damaged_codec_is_refused(vae: Path) -> None:
    weights = vae / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        load_codec(vae)
    (vae / "config.json").write_text("{", "utf-8")
    with pytest.raises(CheckpointError, match="JSON"):
        load_codec(vae)


def test_a_folder_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    """Somebody opens it again and again: for a moment there may be none, but never one with files of both."""
    folder, seen, over = tmp_path / "parts", set[tuple[str, ...]](), threading.Event()

    def read() -> None:
        while not over.is_set():
            with suppress(FileNotFoundError):  # swapped just now, or being cleared away
                opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    seen.add(tuple(content(opened, name) for name in ("a", "b", "c")))
                finally:
                    os.close(opened)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(200):
            with replaced(folder) as part:
                for name in ("a", "b", "c"):
                    (part / name).write_text(str(turn), "utf-8")
    finally:
        over.set()
        reader.join()
    assert len(seen) > 1 and all(len(set(found)) == 1 for found in seen)
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def content(folder: int, name: str) -> str:
    """Of a file in a folder that is open, whatever has become of its name."""
    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), encoding="utf-8") as file:
        return file.read()


def test_a_write_that_fails_leaves_what_was_there(vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in vae.iterdir()}

    def full(self: Any, folder: Path) -> None:
        (folder / "config.json").write_text("{}", "utf-8")
        raise OSError("no space left on device")

    monkeypatch.setattr(AutoencoderTiny, "save_pretrained", full)
    with pytest.raises(OSError, match="no space"):
        save_codec(tiny(), 0.25, vae)
    assert {path.name: path.read_bytes() for path in vae.iterdir()} == before
    assert [path.name for path in vae.parent.iterdir()] == ["vae"]


def test_what_a_kill_left_behind_is_cleared_away(tmp_path: Path) -> None:
    for name in (".tokens.part", ".tokens.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "merges.txt").write_text("torn", "utf-8")
    train_tokenizer(["a red apple"] * 9, tmp_path / "tokens", vocabulary=540, positions=8)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]
    assert "torn" not in (tmp_path / "tokens" / "merges.txt").read_text("utf-8")
