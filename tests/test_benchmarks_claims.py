"""The small tests of Video LDM's claims: sprites move as their captions say, runs go on, and the table counts right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarked import benchmark


def test_sprites_move_as_their_captions_say() -> None:
    with benchmark("sprites") as sprites:
        for kind, most in (("drawn", 0.02), ("filmed", 0.15)):
            shots = sprites.some(12, kind, seed=2)
            clips = sprites.pictures(shots)
            assert float(sprites.errors(clips, shots.velocities()).max()) < most
            for how in (["across"], ["upright"], ["backwards"], ["across", "backwards"]):
                other, said = sprites.mirrored(clips, shots, how)
                assert float(sprites.errors(other, said.velocities()).max()) < most
                assert said.captions() != shots.captions()
        # What does not move is as wrong as it should be fast.
        still = clips[:, :1].expand(-1, sprites.FRAMES, -1, -1, -1)
        torch.testing.assert_close(sprites.errors(still, shots.velocities()), shots.velocities().norm(dim=1))
        gone = torch.full_like(clips, 0.9)
        assert not sprites.seen_velocities(gone).any()


def test_a_run_is_made_once_and_a_cut_one_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Colours:
        name = "colours"

        def __call__(self, pictures: Tensor) -> Tensor:
            return pictures.mean((2, 3))

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}

    with benchmark("claims", str(tmp_path), "--tiny", "--seeds", "0", "--only", "recurrence") as claims:
        claims.features = Colours
        claims.main()
        first = files()
        said = json.loads(first["recurrence-0.json"])
        assert {"loss", "motion", "distance", "weights", "seconds"} <= said.keys()
        claims.main()
        assert files() == first
        for file in ("recurrence-0.json", "recurrence-0.safetensors"):
            (tmp_path / file).unlink()
        plain, claims.SAVED = claims.step_loss, 1

        def cut(learner: Any, data: Any, names: Any, seed: int, step: int, batch: int) -> Tensor:
            if step == 2:
                raise KeyboardInterrupt
            return plain(learner, data, names, seed, step, batch)

        claims.step_loss = cut
        with pytest.raises(KeyboardInterrupt):
            claims.main()
        claims.step_loss = plain
        claims.main()
        again = json.loads(files()["recurrence-0.json"])
        assert {**again, "seconds": 0} == {**said, "seconds": 0}
    assert "| recurrence | 1 |" in capsys.readouterr().out


def test_differences_are_paired_by_seed_and_unknown_ones_are_not_claimed(tmp_path: Path) -> None:
    losses = {"both": (0.50, 0.60, 0.70), "attention": (0.53, 0.631, 0.729), "recurrence": (0.4, 0.9, 0.6)}
    for way, values in losses.items():
        for seed, loss in enumerate(values):
            (tmp_path / f"{way}-{seed}.json").write_text(json.dumps({"way": way, "loss": loss}), "utf-8")
    ways = {"decoder: clips": {"psnr": 27.0}, "decoder: frames": {"psnr": 26.0}}
    for seed in (0, 1):
        (tmp_path / f"decoder-{seed}.json").write_text(json.dumps({"ways": ways}), "utf-8")
    with benchmark("claims_table") as table:
        lines = table.table(tmp_path).splitlines()
    claims = {line.split(" | ")[0]: line for line in lines}
    assert "-0.0300 ± 0.0025 yes" in claims["| convolution and attention, against attention alone"]
    assert claims["| convolution and attention, against recurrence"].count("?") == 1
    assert "+1.00 ± 0.00 yes" in claims["| temporal decoder, against the same layers without neighbours"]
