# pyright: basic
"""Models that are derived from another: a base and a LoRA, found by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import segue.zoo.cards
from dots import FAST
from segue.errors import CheckpointError, ModelError, ModelNotFoundError, TaskError
from segue.models.forecast import Forecast
from segue.models.instruct_adapter import InstructAdapter, InstructLayout
from segue.models.instruct_files import save_instruct
from segue.models.skeleton import INSTRUCT
from segue.tasks.image import Image
from segue.tasks.outlook import Asked, outlook
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Sampling
from segue.zoo import load, models

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v"


def write_lora(path: Path, model: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    width = load_file(model / "unet" / "diffusion_pytorch_model.safetensors")[f"{LAYER}.weight"].shape[0]
    generator = torch.Generator().manual_seed(seed)
    factors = {
        f"unet.{LAYER}.lora_A.weight": torch.randn(2, width, generator=generator),
        f"unet.{LAYER}.lora_B.weight": torch.randn(width, 2, generator=generator),
    }
    save_file(factors, path)
    return factors


@pytest.fixture
def zoo(embedded, written) -> Path:
    """The folder of "dots" and of its student."""
    fast = embedded.with_name("dots-fast")
    fast.mkdir()
    (fast / "card.toml").write_text(FAST)
    write_lora(fast / "student.safetensors", written)
    return embedded.parent


def flops(expected: Forecast) -> int:
    """Of one call that denoises."""
    return next(phase.work.all_flops for phase in expected.phases if phase.name == "denoising")


def weight(model) -> torch.Tensor:
    return model.parts["unet"].get_submodule(LAYER).weight.detach()


def test_the_lora_is_merged_into_the_base(zoo):
    base, student = load("dots"), load("dots-fast")
    assert student.name == "dots-fast"
    factors = load_file(zoo / "dots-fast" / "student.safetensors")
    update = factors[f"unet.{LAYER}.lora_B.weight"] @ factors[f"unet.{LAYER}.lora_A.weight"]
    assert torch.allclose(weight(student), weight(base) + update, atol=1e-6)
    other = "conv_in.weight"
    assert torch.equal(student.parts["unet"].state_dict()[other], base.parts["unet"].state_dict()[other])


def test_its_card_speaks_first_and_the_base_fills_in(zoo):
    base, student = models()
    said = load("dots-fast").defaults
    assert (said.size, said.steps, said.guidance_scale, said.solver) == ((64, 32), 2, 1.0, "lcm")
    assert (student.licence, student.summary, student.concepts) == ("Apache-2.0", "Draws dots in 2 steps.", 2)
    assert (student.vocabulary, student.words) == (base.vocabulary, base.words)
    assert (student.folder, student.weights) == (zoo / "dots-fast", zoo / "dots")
    assert load("dots-fast").vocabulary == ("red apple", "cat", "tree-ripened pear of the garden")


def test_words_of_its_own_are_known_beside_those_of_its_base(zoo):
    (zoo / "dots-fast" / "card.toml").write_text(FAST + '[words]\nmovements = ["rolling"]\n')
    base, student = models()
    assert student.words == {**base.words, "movements": ("rolling",)}
    assert "movements" not in base.words
    assert load("dots-fast").words == student.words


def test_an_adapter_may_make_an_instruction_model_of_its_base(zoo):
    base = load("dots")
    adapter = InstructAdapter(InstructLayout.of(base.parts["unet"], width=16, widths=(16,) * 2, blocks=(1,) * 2))
    folder = zoo / "dots-told"
    folder.mkdir()
    save_instruct(folder / "told.safetensors", adapter, base)
    said = FAST.replace('"dots-fast"', '"dots-told"').replace('lora = "student', 'instruct = "told')
    (folder / "card.toml").write_text(said + "picture_scale = 1.25\n")
    told = load("dots-told")
    assert (told.instructs, base.instructs) == (True, False)
    assert (told.defaults.picture_scale, base.defaults.picture_scale) == (1.25, 1.5)
    assert told.fingerprint != base.fingerprint
    expected = outlook(Asked("dots-told", "cpu"), timed=False).forecast
    held = next(part for part in expected.parts if part.name == INSTRUCT)
    assert held.parameters == sum(weight.numel() for weight in adapter.parameters())
    alone = outlook(Asked("dots", "cpu"), Sampling(size=(64, 32), guidance_scale=(1.0,)), timed=False).forecast
    assert flops(expected) > 1.01 * flops(alone), "a call of the UNet is one of the adapter"
    with pytest.raises(TaskError, match="this is an instruction model"):
        Image("a cat", sampling=Sampling(steps=2)).run(told)
    (folder / "told.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"told\.safetensors is missing"):
        load("dots-told")


def test_no_guidance_at_all_is_said_and_not_left_out(zoo):
    (zoo / "dots-fast" / "card.toml").write_text(FAST.replace("guidance_scale = 1.0", "guidance_scale = 0"))
    assert load("dots-fast").defaults.guidance_scale == 0
    (zoo / "dots-fast" / "card.toml").write_text(FAST.replace("guidance_scale = 1.0", ""))
    assert load("dots-fast").defaults.guidance_scale == 3.5


def test_the_hash_covers_both(zoo, written):
    before = load("dots-fast").fingerprint
    assert before != load("dots").fingerprint
    write_lora(zoo / "dots-fast" / "student.safetensors", written, seed=1)
    other = load("dots-fast").fingerprint
    unet = zoo / "dots" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(unet)
    tensors[f"{LAYER}.weight"] += 1
    save_file(tensors, unet, {"format": "pt"})
    assert len({before, other, load("dots-fast").fingerprint}) == 3


def test_a_rerun_finds_it_again_by_its_name(zoo, written, tmp_path):
    write_lora(tmp_path / "style.safetensors", written, seed=2)
    clip = Image("a cat", sampling=Sampling(steps=2)).run(
        load("dots-fast", loras={tmp_path / "style.safetensors": 0.5})
    )
    clip.save(tmp_path / "x.png")
    again = Rerun.read(tmp_path / "x.json")
    made = again.record.model
    assert made is not None
    assert (made.name, made.loras) == ("dots-fast", [(str(tmp_path / "style.safetensors"), 0.5)])
    same = load(made.name, loras=dict(made.loras))
    assert again.differences(same) == []
    assert torch.equal(again.run(same).frames[0:1], clip.frames[0:1])


def test_a_lora_of_the_users_leaves_the_vocabulary_open(zoo, written, tmp_path):
    write_lora(tmp_path / "style.safetensors", written)
    assert load("dots", loras={tmp_path / "style.safetensors": 1.0}).vocabulary == ()


def test_a_folder_of_ones_own_may_have_an_embedded_base(zoo, tmp_path):
    mine = Path(shutil.copytree(zoo / "dots-fast", tmp_path / "mine"))
    assert load(mine).fingerprint == load("dots-fast").fingerprint
    assert load(mine).defaults.steps == 2


@pytest.mark.parametrize(
    ("old", "new", "kind", "said"),
    [
        ('"dots"', '"spots"', ModelNotFoundError, r'its base "spots" is no embedded model \(there are: dots\)'),
        ('"dots"', '"../dots"', ModelNotFoundError, "is no embedded model"),
        ('"dots"', '"dots-fast"', CheckpointError, 'its base "dots-fast" has a base itself, "dots-fast"'),
        ("student.", "teacher.", ModelNotFoundError, r'teacher\.safetensors is missing; it makes "dots-fast" out of'),
        ("student.", "../dots.", CheckpointError, "lora must be the name of a file in the same folder"),
        ('base = "dots"\n', "", CheckpointError, "base is given together with one or more of lora, time, instruct"),
        (
            'lora = "student.safetensors"\n',
            "",
            CheckpointError,
            "base is given together with one or more of lora, time, instruct",
        ),
        ('"dots-fast"', '"quick-dots"', CheckpointError, 'says name = "quick-dots", and its folder is dots-fast'),
        ("steps = 2", 'steps = "two"', CheckpointError, "steps must be a whole number from 1, got 'two'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(zoo, old, new, kind, said):
    (zoo / "dots-fast" / "card.toml").write_text(FAST.replace(old, new))
    with pytest.raises(kind, match=said) as error:
        load("dots-fast")
    assert "dots-fast" in str(error.value)
    assert load("dots").name == "dots", "a broken student is no reason to refuse its base"


def test_one_level_only(zoo):
    shutil.copytree(zoo / "dots-fast", zoo / "dots-faster")
    card = FAST.replace('"dots-fast"', '"dots-faster"').replace('base = "dots"', 'base = "dots-fast"')
    (zoo / "dots-faster" / "card.toml").write_text(card)
    with pytest.raises(CheckpointError, match='its base "dots-fast" has a base itself, "dots"'):
        load("dots-faster")


def test_a_base_and_weights_of_its_own_are_one_too_many(zoo):
    shutil.copytree(zoo / "dots", zoo / "dots-fast", dirs_exist_ok=True)
    (zoo / "dots-fast" / "card.toml").write_text(FAST)
    with pytest.raises(CheckpointError, match="names a base, and its folder has weights of its own"):
        load("dots-fast")


def test_a_lora_that_does_not_fit_is_refused(zoo):
    save_file(
        {"unet.nothing.lora_A.weight": torch.zeros(2, 4), "unet.nothing.lora_B.weight": torch.zeros(4, 2)},
        zoo / "dots-fast" / "student.safetensors",
    )
    with pytest.raises(ModelError, match=r"student\.safetensors was made for a model of another architecture"):
        load("dots-fast")


def test_a_plain_load_reads_one_card(zoo, monkeypatch):
    """However many models lie beside it."""
    read: list[str] = []
    parsed = segue.zoo.cards._parsed
    monkeypatch.setattr(segue.zoo.cards, "_parsed", lambda folder: read.append(folder.name) or parsed(folder))
    load("dots")
    assert read == ["dots"]
