"""A judge's heads in a safetensors file, with the features that they are for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from segue.errors import CheckpointError, ModelNotFoundError
from segue.evaluation.recognition import Judge
from segue.models.perceptual import EfficientNetFeatures

HEADS = ("mean", "scale", "noun_head", "style_head")
_FEATURES = re.compile(r"efficientnet-lite0 stage statistics \((\d{2,4}) px\)")


def write_judge(judge: Judge, path: Path, about: Mapping[str, Any] | None = None) -> None:
    """Keep a judge; the features are named and not kept.

    Args:
        judge: to be kept.
        path: of the file, which is there whole or not at all.
        about: plain values that are kept with it, such as which renders it learned from.
    """
    said = {**(about or {}), "features": judge.features.name, "nouns": judge.nouns, "styles": judge.styles}
    part = path.with_suffix(f".part-{os.getpid()}")
    try:
        heads = {name: getattr(judge, name).contiguous() for name in HEADS}
        save_file(heads, part, {"about": json.dumps(said)})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_about(path: Path) -> dict[str, Any]:
    """What is kept beside the heads.

    Raises:
        ModelNotFoundError: there is no such file.
        CheckpointError: it holds no judge.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"there is no file {path}; benchmarks/models.py --judge-corpus makes a judge")
    try:
        with safe_open(path, "pt") as file:
            said = json.loads(file.metadata()["about"])
            keys = set(file.keys())
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} holds no judge ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(said, dict) or keys != set(HEADS):
        raise CheckpointError(f"{path} holds no judge: expected {', '.join(HEADS)}; got {', '.join(sorted(keys))}")
    return said


def read_judge(path: Path) -> Judge:
    """A judge, on features whose weights are fetched once: `segue models --fetch efficientnet-lite0`.

    Raises:
        ModelNotFoundError: there is no such file.
        CheckpointError: it holds no judge, or one on other features.
        ModelAccessError: the weights of the features are not here.
    """
    said = read_about(path)
    known = _FEATURES.fullmatch(str(said.get("features")))
    if known is None:
        raise CheckpointError(f"{path} is a judge on {said.get('features')}, and there are none of these here")
    features = EfficientNetFeatures.load(side=int(known[1]))
    with safe_open(path, "pt") as file:
        mean, scale, noun_head, style_head = (file.get_tensor(name).float() for name in HEADS)
    nouns, styles = (tuple(str(word) for word in said.get(name, ())) for name in ("nouns", "styles"))
    width = len(mean)
    shapes = [tuple(each.shape) for each in (scale, noun_head, style_head)]
    if shapes != [(width,), (len(nouns), width + 1), (len(styles), width + 1)]:
        raise CheckpointError(f"{path} is damaged: {len(nouns)} nouns, {len(styles)} styles, heads of {shapes}")
    return Judge(features, nouns, styles, mean, scale, noun_head, style_head)
