"""The devices that this machine has. Apart from the models, as some work needs a device and no model."""

from __future__ import annotations

import re

import torch

from segue.errors import ModelError


def find_device(device: str | torch.device | None) -> torch.device:
    """The device that is meant, which must be there.

    Raises:
        ModelError: this machine does not have it.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # Of a device that was not compiled in, the dispatcher goes on with a list of all that were.
        why = re.split(r"\.\s|\n", str(error).strip(), maxsplit=1)[0] or type(error).__name__
        raise ModelError(f'device "{device}" cannot be used here ({why}); "cpu" always can') from None
    return chosen
