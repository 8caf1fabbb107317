"""A run that one command records is a key of another, on a real network."""

from __future__ import annotations

from pathlib import Path

from cli.conftest import SHORT, Run


def test_a_recorded_run_is_the_key_that_it_would_be(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    how = ["--model", checkpoint, "--steps", "4", "--deterministic-batch", "--max-batch", "4"]
    image = ["image", "a cat", "--seed", "2", *how]
    film = ["transition", "a red apple", "a cat", "--seed", "1", "--seed", "2", *how, *SHORT, "--max-branches", "2"]
    assert run(*image, "-o", "cat.png", "--trajectory", "walk.safetensors").code == 0
    assert run(*film, "-o", "plain").code == 0
    answer = run(*film, "-o", "given", "--key-image", "last=walk.safetensors")
    assert (answer.code, "walk" in answer.err) == (0, False)
    frames = sorted(path.name for path in (tmp_path / "plain").iterdir())
    assert len([name for name in frames if name.endswith(".png")]) == 8
    for name in frames:
        if name.endswith(".png"):
            assert (tmp_path / "given" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_files_that_cannot_be_are_told_before_the_work(run: Run, checkpoint: Path) -> None:
    for name, said in (("walk.pt", "written as safetensors"), ("nowhere/walk.safetensors", "does not exist")):
        answer = run("image", "a cat", "--model", checkpoint, "--trajectory", name)
        assert answer.code != 0
        assert said in answer.err
        assert "denoising" not in answer.err
    answer = run("transition", "a cat", "a dog", "--model", checkpoint, "--key-image", "1=nothing.safetensors")
    assert answer.code != 0
    assert "there is no file nothing.safetensors" in answer.err
