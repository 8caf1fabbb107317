# pyright: basic
"""T5: encoded once, on its own, off the device; weights multiply; what is too long is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_flow import t5, t5_tokenizer

from segue.errors import CheckpointError, TaskError
from segue.models.lora_rows import scaled
from segue.models.text_t5 import REMEMBERED, T5Text, read_t5, visiting, waits

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    t5(len(t5_tokenizer(root / "tokenizer_2"))).save_pretrained(root / "text_encoder_2")
    return root


@pytest.fixture
def text(folder: Path) -> T5Text:
    return read_t5(folder, "text_encoder_2", 24, CPU, torch.float32)[0]


def counted(text: T5Text) -> list[int]:
    calls: list[int] = []
    text.encoder.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_a_prompt_is_what_the_library_makes_of_it(text):
    prompt = "a red apple on white"
    tokens = text.tokenizer([prompt], padding="max_length", max_length=24, return_tensors="pt").input_ids
    assert torch.equal(text([prompt]), text.encoder(tokens)[0])
    assert text([prompt, "a cat"]).shape == (2, 24, text.width)


def test_a_prompt_is_encoded_once_and_whatever_its_weights(text):
    calls = counted(text)
    first = text(["a red apple", "a cat", "a red apple"])
    assert len(calls) == 2
    assert torch.equal(text(["a cat"])[0], first[1])
    assert torch.equal(first[0], first[2])
    assert len(calls) == 2
    assert not torch.allclose(text(["a (red:1.5) apple"])[0], first[0])
    assert len(calls) == 2, "the same tokens"
    text(["a cat " + "red " * (count + 1) for count in range(10)])
    text([f"{a} {b}" for a in "abcdefgh" for b in "abcdefgh"])
    assert len(text._known) == REMEMBERED


def test_weights_multiply_tokens_and_keep_the_magnitude(text):
    plain, heavy = text(["a red apple"])[0], text(["a (red:2) apple"])[0]
    assert heavy.abs().mean() == pytest.approx(float(plain.abs().mean()), rel=1e-5)
    ratio = (heavy / plain)[:5].mean(1)
    assert ratio[1] / ratio[0] == pytest.approx(2, rel=1e-3)
    assert torch.allclose(ratio[[0, 2, 3, 4]], ratio[0].expand(4), rtol=1e-3)


def test_what_is_too_long_is_refused_and_nothing_is_cut(text):
    assert text(["a " * 23]).shape[1] == 24
    with pytest.raises(TaskError, match=r"may have 23 tokens.*got 24"):
        text(["a " * 24])
    with pytest.raises(TaskError, match="at least one"):
        text([])


def test_half_precision_is_bfloat16_for_it(folder):
    half, _ = read_t5(folder, "text_encoder_2", 24, CPU, torch.float16)
    assert half.encoder.dtype == torch.bfloat16
    whole, _ = read_t5(folder, "text_encoder_2", 24, CPU, torch.float32)
    assert (half(["a cat"]) - whole(["a cat"])).abs().mean() < 0.05
    assert half(["a cat"]).dtype == torch.float32


def test_a_visitor_comes_home_as_it_was(text, monkeypatch):
    """Copies stand in for a graphics card: weights lie elsewhere, and where they were afterwards."""

    def places() -> set[int]:
        return {tensor.data_ptr() for tensor in text.encoder.parameters()}

    homes = places()
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: self.clone())
    with visiting(text.encoder, CPU):
        assert not places() & homes
    assert places() == homes
    with pytest.raises(KeyError), visiting(text.encoder, CPU):
        raise KeyError
    assert places() == homes


def test_without_room_it_works_where_it_is(text, monkeypatch):
    def full(self, device):
        raise torch.OutOfMemoryError("full")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", full)
        with visiting(text.encoder, torch.device("meta")):
            assert text.encoder.device == CPU


def test_it_waits_where_the_device_has_a_memory_of_its_own():
    assert [waits(torch.device(name)) for name in ("cpu", "mps", "cuda")] == [False, False, True]


def test_a_tokenizer_of_another_vocabulary_is_no_pair(folder, tmp_path):
    t5_tokenizer(tmp_path / "tokenizer_2")
    t5(50).save_pretrained(tmp_path / "text_encoder_2")
    with pytest.raises(CheckpointError, match="are no pair"):
        read_t5(tmp_path, "text_encoder_2", 24, CPU, torch.float32)


def test_an_encoder_that_was_changed_is_asked_anew(text):
    calls = counted(text)
    before = text(["a cat"])
    weight = text.encoder.get_submodule("encoder.block.0.layer.0.SelfAttention.q").weight
    with torch.no_grad():
        weight.mul_(2)
    assert not torch.equal(text(["a cat"]), before)
    with torch.no_grad():
        weight.mul_(0.5)
    assert torch.equal(text(["a cat"]), before)
    assert len(calls) == 3


def test_nothing_is_remembered_while_loras_are_told_their_scales(text):
    calls = counted(text)
    with scaled(torch.ones(1, 1)):
        text(["a cat", "a cat"])
        text(["a cat"])
    assert len(calls) == 2 and not text._known
