"""The processes that share a run: one, or those that `accelerate launch` started."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segue.errors import TrainingError


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many, and the device that is its own.

    All ranks hold the same weights, draw the same batch, and each learns from its share of the rows; gradients are
    averaged after each backward pass. So the number of ranks changes a run by rounding only. The models here are small:
    one reduction of all gradients at once costs less than the hooks that would overlap it with the backward pass.
    """

    index: int
    count: int
    device: torch.device

    @classmethod
    def start(cls, device: str) -> Ranks:
        """Join the other processes, if there are any. On several GPUs, `device` "cuda" is one for each rank.

        Raises:
            TrainingError: there is no such device.
        """
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise TrainingError(f"device={device} cannot be used here ({reason}); expected cpu, cuda or mps") from error
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(0, 1, torch.device(device))
        from accelerate import PartialState

        state: Any = PartialState(cpu=device == "cpu")
        return cls(state.process_index, state.num_processes, state.device)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.index == 0

    def share(self, batch: int) -> slice:
        """The rows of a batch that are this rank's.

        Raises:
            TrainingError: the batch cannot be shared out evenly.
        """
        if batch % self.count:
            raise TrainingError(f"batch must be a multiple of {self.count}, the number of processes; got {batch}")
        rows = batch // self.count
        return slice(self.index * rows, (self.index + 1) * rows)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over ranks."""
        if self.count > 1:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            for gradient, mean in zip(gradients, self._means(gradients), strict=True):
                gradient.copy_(mean)

    def mean(self, value: Tensor) -> Tensor:
        """A tensor's mean over ranks."""
        return value if self.count == 1 else self._means([value])[0]

    def means(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean over ranks of numbers that each has measured."""
        if self.count == 1:
            return values
        return dict(zip(values, self._means([value.detach().float() for value in values.values()]), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether any rank says so; all must ask."""
        return flag if self.count == 1 else bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    @contextmanager
    def main_first(self) -> Generator[None]:
        """The main process does what is inside, and the others when it is done: for files that all read."""
        if self.count > 1 and not self.main:
            torch.distributed.barrier()
        yield
        if self.count > 1 and self.main:
            torch.distributed.barrier()

    def _means(self, tensors: list[Tensor]) -> list[Tensor]:
        """The means over ranks, from one reduction of all."""
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        parts = (flat / self.count).split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
