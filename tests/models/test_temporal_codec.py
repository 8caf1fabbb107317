# pyright: basic
"""Decoders that look along time: parity where one chunk is enough, and no seams where it is not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_svd import tiny_temporal_vae
from tiny_upscaler import stir

from segue.models.decoding import bytes_per_latent, largest_side, tiled
from segue.models.temporal_codec import TemporalCodec, chunks


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(9)
    vae = tiny_temporal_vae()
    stir(vae)
    return TemporalCodec(vae.eval().requires_grad_(False))


def moving_latents(frames: int) -> torch.Tensor:
    """A clip that changes evenly: a turn in the plane of two fields."""
    one, other = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    angles = torch.linspace(0, 2, frames).reshape(-1, 1, 1, 1)
    return angles.cos() * one + angles.sin() * other


def whole(codec: TemporalCodec, latents: torch.Tensor) -> torch.Tensor:
    vae: Any = codec.vae
    z = latents / vae.config.scaling_factor
    return (vae.decode(z, num_frames=len(z)).sample / 2 + 0.5).clamp(0, 1)


def test_a_short_clip_is_decoded_as_by_diffusers(codec):
    for frames in (1, 5, 8):
        latents = moving_latents(frames)
        assert (codec.decode(latents) - whole(codec, latents)).abs().max() < 1e-6


def test_the_decoder_looks_along_time(codec):
    latents = moving_latents(8)
    alone = torch.cat([codec.decode(row[None]) for row in latents])
    assert (codec.decode(latents) - alone).abs().mean() > 1e-3


def seam_ratio(clip: torch.Tensor, borders: list[int]) -> float:
    """The largest of the second differences in time about borders of chunks, to their median elsewhere.

    Evenly moving frames have small ones, and a cut has large ones.
    """
    bends = (clip[2:] - 2 * clip[1:-1] + clip[:-2]).flatten(1).norm(dim=1)
    near = {place - 1 for border in borders for place in (border - 1, border)}
    elsewhere = [float(bend) for place, bend in enumerate(bends) if place not in near]
    return max(float(bends[place]) for place in near) / sorted(elsewhere)[len(elsewhere) // 2]


def test_chunks_that_fade_into_each_other_have_no_seam(codec):
    latents = moving_latents(22)
    cut = torch.cat([whole(codec, part) for part in latents.split(8)])
    faded, right = codec.decode(latents), whole(codec, latents)
    borders = [8, 16]
    plain = seam_ratio(right, borders)
    assert seam_ratio(cut, borders) > 3 * plain
    assert seam_ratio(faded, borders) < 1.5 * plain
    places = [place.start for place in chunks(22, 8, 3)][1:] + [place.stop for place in chunks(22, 8, 3)][:-1]
    assert seam_ratio(faded, places) < 3 * plain
    assert (faded - right).abs().mean() < (cut - right).abs().mean()


def test_pieces_are_the_whole(codec):
    latents = moving_latents(22)
    pieces = list(codec.pieces(latents))
    assert len(pieces) > 2
    assert max(map(len, pieces)) <= codec.slice
    assert torch.equal(torch.cat(pieces), codec.decode(latents))


@pytest.mark.parametrize(("most", "overlap"), [(8, 3), (14, 4), (5, 2), (4, 1), (3, 0)])
def test_chunks_cover_a_clip_and_only_neighbours_meet(most, overlap):
    for frames in range(1, 120):
        places = chunks(frames, most, overlap)
        assert [places[0].start, places[-1].stop] == [0, frames]
        assert max(map(len, places)) <= min(most, min(map(len, places)) + 1)
        assert all(a.stop - b.start == overlap for a, b in pairwise(places))
        assert all(a.stop <= c.start for a, c in zip(places, places[2:], strict=False))


def test_pictures_are_encoded_one_by_one(codec):
    pictures = torch.rand(3, 3, 16, 16)
    together = codec.encode(pictures)
    assert together.shape == (3, 4, 8, 8)
    assert (together - torch.cat([codec.encode(one[None]) for one in pictures])).abs().max() < 1e-5


def test_tiles_are_smaller_for_as_many_frames_as_are_decoded_at_once(codec):
    room = int(bytes_per_latent(codec) * 8 * 64**2) + 1
    assert largest_side(codec, room) == 64
    assert tiled(codec, 128, 0).tile == 64
    assert isinstance(tiled(codec, 128, 0), TemporalCodec)
    with pytest.raises(ValueError, match="a third of 6 frames"):
        replace(codec, slice=6, overlap=3)
