"""What keeps colours and not drawings."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from segue.models.annotate import find_annotator
from segue.models.annotate.colours import shuffle


def noise(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(3))


def test_palette_shows_means_of_patches() -> None:
    pictures = noise(128, 256)
    drawn = find_annotator("palette")(pictures)
    means = interpolate(pictures, (8, 16), mode="area")
    torch.testing.assert_close(drawn, interpolate(means, (128, 256), mode="nearest"))


def test_tile_keeps_what_64_pixels_hold() -> None:
    drawn = find_annotator("tile")(noise(256, 256))
    smooth = interpolate(noise(8, 8), (64, 64), mode="bicubic").clamp(0, 1)
    assert float(drawn.std()) < 0.5 * float(noise(256, 256).std())
    assert torch.equal(find_annotator("tile")(smooth), smooth), "as small as it is kept"
    larger = interpolate(smooth, (256, 256), mode="bicubic").clamp(0, 1)
    assert float((find_annotator("tile")(larger) - larger).abs().max()) < 0.02


def test_shuffle_is_one_warp_for_all_frames_and_sizes() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 128), torch.linspace(0, 1, 128), indexing="ij")
    places = torch.stack([x, y, 0.5 * (x + y)])[None]
    small = find_annotator("shuffle")(places)
    large = find_annotator("shuffle")(interpolate(places, (512, 512), mode="bilinear", align_corners=True))
    assert float((interpolate(large, (128, 128), mode="area") - small).abs().mean()) < 0.02
    assert float((small - places).abs().mean()) > 0.1, "it stirs"
    # What it shows at a place tells where that came from: the whole picture is seen, and neighbours stay neighbours.
    assert float(small[:, :2].amin()) < 0.02 and float(small[:, :2].amax()) > 0.98
    assert float((small[..., 1:] - small[..., :-1]).abs().max()) < 0.2
    other = shuffle(places[0].permute(1, 2, 0).numpy(), "another")
    assert abs(other - small[0].permute(1, 2, 0).numpy()).mean() > 0.05
