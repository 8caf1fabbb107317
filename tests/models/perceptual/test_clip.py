# pyright: basic
"""CLIP is transformers' own, its pictures are made ready as its processor does it, and heads are what they multiply."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from models.perceptual.tiny_clip import SIDE, WIDTH, write_clip
from segue.errors import CheckpointError, ModelNotFoundError, TaskError, UnsafeFileError
from segue.models.perceptual import ClipNetwork, LinearHead
from segue.models.perceptual.clip import MEAN, Sight


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "tiny")


@pytest.fixture(scope="module")
def clip(folder):
    return ClipNetwork.load(folder)


def bytes_of(seed, height, width):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [(48, 80), (91, 64), (32, 32), (20, 27), (33, 32)])
def test_pictures_are_made_ready_as_the_processor_does(size, folder):
    picture = bytes_of(1, *size)
    ours = Sight.read(folder, SIDE)(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)
    theirs = CLIPImageProcessorPil.from_pretrained(folder)(Image.fromarray(picture), return_tensors="pt")
    levels = (ours - theirs["pixel_values"]).abs() * torch.tensor([0.2686, 0.2613, 0.2758]).view(3, 1, 1) * 255
    assert levels.max() < 1.01  # theirs is rounded, once for each direction that is resized


def test_features_and_cosines_are_those_of_transformers(folder, clip):
    network = CLIPModel.from_pretrained(folder).eval()
    pictures = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    prompts = ["a red apple", "cat"]
    tokens = clip.tokenizer(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = network(**{k: tokens[k] for k in ("input_ids", "attention_mask")}, pixel_values=clip.sight(pictures))
    torch.testing.assert_close(clip(pictures), out.image_embeds, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(clip.texts(prompts), out.text_embeds, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(clip(pictures).norm(dim=1), torch.ones(3))
    assert (clip.texts(prompts)[1] - clip.texts(["cat"])[0]).abs().max() < 1e-5  # padding is not read
    assert clip.width == WIDTH


def test_it_is_named_by_its_weights(folder, clip, tmp_path):
    other = ClipNetwork.load(write_clip(tmp_path / "tiny", seed=1))
    assert clip.name.startswith("CLIP tiny (")
    assert other.name != clip.name == ClipNetwork.load(str(folder)).name


def test_texts_that_are_too_long_are_refused_instead_of_cut(clip):
    with pytest.raises(TaskError, match="reads texts of up to 20 tokens"):
        clip.texts(["a cat", "red apple " * 40])


def test_what_is_no_clip_is_refused(folder, tmp_path):
    with pytest.raises(ModelNotFoundError, match="there is no CLIP at nowhere"):
        ClipNetwork.load("nowhere")
    other = write_clip(tmp_path / "other")
    (other / "preprocessor_config.json").write_text(json.dumps({"size": 224, "crop_size": 224}))
    with pytest.raises(CheckpointError, match="of different checkpoints"):
        ClipNetwork.load(other)
    (other / "preprocessor_config.json").unlink()
    assert ClipNetwork.load(other).sight == Sight(SIDE, SIDE, MEAN)
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    with pytest.raises(UnsafeFileError, match="pickle"):
        ClipNetwork.load(other)
    (other / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(CheckpointError, match="siglip"):
        ClipNetwork.load(other)


def test_linear_heads_are_what_their_layers_make(tmp_path):
    layers = [torch.nn.Linear(WIDTH, 7), torch.nn.Linear(7, 5, bias=False), torch.nn.Linear(5, 1)]
    features = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(3))
    several = {f"layers.{2 * i}.{k}": v.detach() for i, layer in enumerate(layers) for k, v in layer.named_parameters()}
    save_file(several, tmp_path / "deep.safetensors")
    found = LinearHead.load(tmp_path / "deep.safetensors", WIDTH)
    torch.testing.assert_close(found(features), torch.nn.Sequential(*layers)(features)[:, 0].detach())
    save_file({"weight": layers[0].weight[:1].detach().clone()}, tmp_path / "one.safetensors")
    one = LinearHead.load(tmp_path / "one.safetensors", WIDTH)
    torch.testing.assert_close(one(features), features @ layers[0].weight[0].detach())
    assert one.name.startswith("one (") and one.name != found.name


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"weight": torch.zeros(1, 9)}, "does not take the 12 numbers"),
        ({"weight": torch.zeros(2, 12)}, "is no linear head"),
        ({"thing": torch.zeros(1, 12)}, "is no linear head.*thing"),
        ({"weight": torch.zeros(1, 12), "norm.scale": torch.zeros(12)}, "is no linear head"),
    ],
)
def test_other_files_are_no_heads(tensors, said, tmp_path):
    save_file(tensors, tmp_path / "head.safetensors")
    with pytest.raises(CheckpointError, match=said):
        LinearHead.load(tmp_path / "head.safetensors", WIDTH)


def test_heads_are_no_pickles(tmp_path):
    (tmp_path / "head.pth").write_bytes(b"PK")
    with pytest.raises(UnsafeFileError):
        LinearHead.load(tmp_path / "head.pth", WIDTH)
