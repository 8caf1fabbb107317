"""Masks as files: what is black is kept to the last byte, and what is no mask is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segue.errors import MediaError, TaskError
from segue.media.clip import Clip, TensorFrames, levels_of
from segue.media.reader import read
from segue.tasks.frames import DecodedFrames, Developer
from segue.tasks.masks import Area, GreyPicture, Kept, shown_to
from segue.temporal.mask import feathered, pooled
from segue.temporal.timeline import Shot
from toy import PatchCodec, toy_model

SIZE = (16, 16)


def picture(path: Path, levels: Tensor) -> Path:
    """Bytes, (h, w) for greys or (3, h, w) for colours, as a file."""
    colours = levels if levels.ndim == 3 else levels.expand(3, *levels.shape)
    return Clip(TensorFrames(colours[None].byte()), 1).save(path)


def half(width: int = 16, height: int = 16) -> Tensor:
    levels = torch.zeros(height, width)
    levels[:, width // 2 :] = 255
    return levels


def test_grey_values_are_numbers(tmp_path: Path) -> None:
    levels = torch.arange(256).reshape(16, 16)
    grey = GreyPicture(picture(tmp_path / "m.png", levels)).load(SIZE)
    assert torch.equal(grey, levels / 255)


def test_a_mask_of_another_size_is_scaled_cut_and_said(tmp_path: Path) -> None:
    mask = GreyPicture(picture(tmp_path / "m.png", half(64, 40)))
    grey = mask.load(SIZE)
    assert torch.equal(grey[:, :7], torch.zeros(16, 7))
    assert torch.equal(grey[:, 9:], torch.ones(16, 7))
    assert mask.notes(SIZE) == (f"{mask.path} has 64x40 pixels; it is scaled and cut to 16x16",)
    assert mask.notes((64, 40)) == ()


def test_what_does_not_say_much_is_said(tmp_path: Path) -> None:
    even = picture(tmp_path / "e.png", torch.full((16, 16), 255))
    assert GreyPicture(even).notes(SIZE) == (
        f"{even} is of one grey everywhere; a mask is white where the film changes and black where it is kept",
    )
    assert "changes at the same time" in GreyPicture(even, "timing").notes(SIZE)[0]
    smeared = GreyPicture(picture(tmp_path / "s.png", half().clamp(min=3)))
    assert "nothing is kept exactly" in smeared.notes(SIZE)[0]
    assert replace(smeared, role="timing").notes(SIZE) == ()


def test_what_is_no_mask_is_told(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="there is no such file"):
        GreyPicture(tmp_path / "none.png").load(SIZE)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(MediaError):
        GreyPicture(tmp_path / "text.png").load(SIZE)
    colours = torch.randint(0, 256, (3, 16, 16), generator=torch.Generator().manual_seed(0))
    photo = picture(tmp_path / "photo.png", colours)
    with pytest.raises(TaskError, match=r"mask must be .* white where the film changes.*photo\.png has colours"):
        GreyPicture(photo).load(SIZE)
    with pytest.raises(TaskError, match=r"timing must be .* white where it changes last"):
        GreyPicture(photo, "timing").load(SIZE)
    film = Clip(TensorFrames(torch.zeros(3, 3, 16, 16).byte()), 5).save(tmp_path / "film.mp4")
    with pytest.raises(TaskError, match=r"mask must be one picture; .*film\.mp4 has 3"):
        GreyPicture(film).load(SIZE)


def test_a_plan_knows_its_mask(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{name}.png", half()) for name in "mt"]
    area = Area(mask=str(paths[0]), timing=str(paths[1]))
    known = area.hashes()
    area.check_unchanged(known)
    picture(paths[1], half().flip(1))
    with pytest.raises(TaskError, match=r"t\.png is not the file .* contents have changed"):
        area.check_unchanged(known)
    with pytest.raises(TaskError, match="another mask or timing"):
        replace(area, timing=None).check_unchanged(known)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"mask": "m.png", "feather": -1.0}, "feather must be from 0 to 512 pixels, got -1"),
        ({"mask": "m.png", "feather": 513}, "feather must be from 0 to 512 pixels"),
        ({"mask": "m.png", "feather": float("nan")}, "feather must be from 0 to 512 pixels"),
        ({"timing": "t.png", "spread": 0.0}, "spread must be above 0 and below 1"),
        ({"timing": "t.png", "spread": 1.0}, "spread must be above 0 and below 1"),
        ({"feather": 4.0}, "feather says something of the picture that mask gives"),
        ({"spread": 0.5}, "spread says something of the picture that timing gives"),
    ],
)
def test_impossible_areas_are_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(TaskError, match=expected):
        Area(**settings)


def test_an_area_is_what_its_files_say(tmp_path: Path) -> None:
    path = str(picture(tmp_path / "m.png", half()))
    changes = Area(mask=path, feather=2).changes(SIZE)
    assert changes is not None
    assert torch.equal(changes, feathered(half() / 255, 2.0))
    default = Area(mask=path).changes(SIZE)
    assert default is not None
    assert torch.equal(default, feathered(half() / 255, 8.0))
    timing = Area(timing=path, spread=0.3).schedule(SIZE, 4)
    assert timing is not None
    assert timing.spread == 0.3
    assert torch.equal(timing.delays, pooled(half() / 255, 4))
    assert Area().changes(SIZE) is None is Area().schedule(SIZE, 4)
    assert Area().hashes() == [] and Area().notes(SIZE) == ()
    assert len(Area(mask=path, timing=path).notes((8, 8))) == 2


def film(mask: Tensor, share: float = 0.3, batch: int = 3) -> tuple[DecodedFrames, Tensor]:
    """Frames of six pictures, the last one mixed, under a mask; and the source picture."""
    latents = torch.randn(6, 12, 8, 8, generator=torch.Generator().manual_seed(4)) * 0.4
    codec = PatchCodec()
    source = codec.decode(latents[:1])[0]
    develop = Developer(codec, kept=Kept(mask, lambda: source))
    shots = (*(Shot(k, k, 0.0) for k in range(5)), Shot(4, 5, share))
    places = {k: k / 5 for k in range(6)}
    return DecodedFrames(dict(enumerate(latents)), places, shots, develop, batch), source


@pytest.mark.parametrize("feather", [0.0, 3.0])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_what_is_black_is_the_source_bit_for_bit(feather: float, share: float, tmp_path: Path) -> None:
    """In floats, as bytes, and in a written folder of pictures; frames that are mixed from others too."""
    mask = feathered(half() / 255, feather)
    frames, source = film(mask, share)
    shown, kept = frames[0:6], mask == 0
    assert all(torch.equal(one[:, kept], source[:, kept]) for one in shown)
    assert all(not torch.equal(one, source) for one in shown[1:])
    written = read(Clip(frames, 6).save(tmp_path / "film"))
    levels = levels_of(written.frames, slice(0, 6))
    assert all(torch.equal(one[:, kept], levels[0][:, kept]) for one in levels)
    assert torch.equal(levels[0], (source * 255).round().byte())


def test_a_white_mask_changes_no_picture_and_a_black_one_leaves_only_the_source() -> None:
    frames, source = film(torch.ones(16, 16))
    plain = replace(frames, develop=Developer(PatchCodec()))
    assert torch.equal(frames[0:6], plain[0:6])
    assert all(torch.equal(one, source) for one in film(torch.zeros(16, 16))[0][0:6])


def test_the_source_is_made_once() -> None:
    made: list[int] = []

    def source() -> Tensor:
        made.append(1)
        return torch.zeros(3, 4, 4)

    kept = Kept(torch.full((4, 4), 0.25), source)
    assert made == []
    assert torch.equal(kept(torch.ones(3, 4, 4)), kept(torch.ones(3, 4, 4)))
    assert float(kept(torch.ones(3, 4, 4))[0, 0, 0]) == 0.25
    assert made == [1]
    assert kept.source is not source


def test_given_pictures_are_kept_too() -> None:
    """A key that is a picture is shown as it is inside the mask only: the kept area is the same in all of the film."""
    frames, source = film(half() / 255)
    given = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(5))
    frames.develop.given[3] = given
    shown = frames[3:4][0]
    assert torch.equal(shown[..., 8:], given[..., 8:])
    assert torch.equal(shown[..., :8], source[..., :8])


def test_plain_models_are_told_nothing_of_masks() -> None:
    model = toy_model()
    texts = model.text(["one", "two"])
    assert shown_to(model, texts, None, None) is texts
    assert shown_to(model, texts, torch.zeros(3, 16, 16), torch.zeros(16, 16)) is texts


def test_inpainting_models_are_shown_picture_and_mask() -> None:
    model = replace(toy_model(), inpaints=True)
    texts, (shown, mask) = model.text(["one", "two"]), (torch.rand(3, 16, 16), half() / 255)
    told = shown_to(model, texts, shown, mask)
    assert told.concat is not None
    assert told.concat.shape == (2, 13, 8, 8)
    assert torch.equal(told.concat[:, 0], pooled(mask, 2).expand(2, -1, -1))
    assert torch.equal(told.concat[0, 1:, :, :4], model.codec.encode(shown[None])[0, :, :, :4])
    assert told[[1]].concat is not None
    with pytest.raises(TaskError, match="toy is an inpainting model: it needs a mask"):
        shown_to(model, texts, shown, None)
    with pytest.raises(TaskError, match="needs a picture to start from"):
        shown_to(model, texts, None, mask)
