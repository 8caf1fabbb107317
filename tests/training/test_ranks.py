"""Several processes that share a run make of it what one would."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from segue.errors import TrainingError
from segue.training.ranks import Ranks
from segue.training.recipes import codec, t2i

BLOCKS: dict[str, Any] = {
    "encoder_blocks": (0, 1, 1, 1),
    "decoder_blocks": (1, 1, 1, 1),
    "width": 8,
    "validation_every": 8,
}
RIVAL: dict[str, Any] = {"adversarial": 0.5, "adversarial_start": 0.3, "discriminator_width": 8}
# Of 32 channels, the norms of the UNet make groups of one, which take out what a bias or a time adds to a channel: the
# true gradients of 31 tensors of 226 are 0, and Adam makes whole steps of their rounding. Of 64, one is left.
PARTS: dict[str, Any] = {"widths": (64, 64), "text_width": 32, "text_layers": 1, "vocabulary": 600, "sheet_steps": 2}
TIMES: dict[str, Any] = {
    "steps": 5,
    "batch": 4,
    "warmup": 2,
    "decay": 1,
    "log_every": 2,
    "save_every": 2,
    "bf16": False,
}
PROGRAM = """
import sys
from pathlib import Path
from tests.training.test_ranks import configs
from segue.training.recipes import codec, t2i
corpus, out = map(Path, sys.argv[1:])
first, second = configs(corpus, out)
codec.main(first)
t2i.main(second)
"""


def configs(corpus: Path, out: Path) -> tuple[codec.Config, t2i.Config]:
    first = codec.Config(corpus=corpus, out=out / "codec", **BLOCKS, **RIVAL, **TIMES)
    second = t2i.Config(corpus=corpus, codec=first.out / "vae", out=out / "t2i", sheet_every=9, **PARTS, **TIMES)
    return first, dataclasses.replace(second, min_snr=5.0)


def launch(corpus: Path, out: Path, count: int) -> None:
    """What `accelerate launch --cpu --num_processes 2` does, without its own start."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    root = str(Path(__file__).parents[2])
    many = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "PYTHONPATH": root}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(corpus), str(out)],
            env={**os.environ, **address, **many, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        for process in processes:
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()  # one that waits for another which failed
            process.communicate()


def logged(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_two_ranks_make_of_a_run_what_one_does(corpus: Path, tmp_path: Path) -> None:
    """The codec with its discriminator, then text to picture: the same losses, but for the order of sums."""
    first, second = configs(corpus, tmp_path / "one")
    codec.main(first)
    t2i.main(second)
    launch(corpus, tmp_path / "two", 2)
    for name in ("codec", "t2i"):
        one, two = (logged(tmp_path / count / name) for count in ("one", "two"))
        assert [line.keys() for line in one] == [line.keys() for line in two]
        for ours, theirs in zip(one, two, strict=True):
            assert theirs == pytest.approx(ours, rel=1e-4, abs=2e-6)
        here, there = (load_file(tmp_path / count / name / "checkpoint.safetensors") for count in ("one", "two"))
        assert here.keys() == there.keys()
        # Of weights, a rounded gradient near 0 moves some by a whole step of Adam (the bias of the text encoder's keys,
        # whose true gradient is 0, by 1e-5); what it remembers says more. Measured of t2i: 3e-6 after the first step
        # and 3e-5 after all five. It is rounding alone: one batch and the mean of its halves, in one process, are 4e-6
        # apart in float32 and 7e-15 in float64.
        gradients = [key for key in here if ".exp_avg." in f".{key}"]
        assert gradients
        apart = {key: float((here[key] - there[key]).norm() / here[key].norm().clamp(min=1e-4)) for key in gradients}
        assert max(apart.values()) < 1e-4, max(apart, key=apart.__getitem__)
    assert (tmp_path / "two" / "t2i" / "model" / "model_index.json").is_file()


def test_rows_are_shared_out_in_order() -> None:
    shares = [list(range(6))[Ranks(index, 3, torch.device("cpu")).share(6)] for index in range(3)]
    assert shares == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(TrainingError, match="multiple of 3, the number of processes; got 7"):
        Ranks(0, 3, torch.device("cpu")).share(7)


def test_one_process_needs_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = Ranks.start("cpu")
    value = torch.tensor(2.0)
    assert ranks.main and ranks.count == 1 and ranks.share(5) == slice(0, 5)
    assert ranks.mean(value) is value and ranks.any(True) and not ranks.any(False)
    with ranks.main_first():
        pass
