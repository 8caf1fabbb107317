"""Banks in files: the anchors of a clip, for others that shall look like it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segue.errors import CheckpointError, TaskError

if TYPE_CHECKING:
    from segue.diffusion.schedule import Schedule
    from segue.models.bundle import LatentDiffusion
    from segue.temporal.bank import Bank

FORMAT = "segue bank 1"
_WANTED = 'a bank is what "segue stylize ... --save-bank FILE" writes'


@dataclass(frozen=True)
class BankUse:
    """The run that a bank is saved from, or used in.

    Args:
        model: with its controls.
        solver: how it steps.
        size: (width, height) of the pictures.
        controls: their names.
    """

    model: LatentDiffusion
    solver: str
    size: tuple[int, int]
    controls: tuple[str, ...] = ()

    def save(self, bank: Bank, path: Path) -> None:
        """Write the anchors of this run to a safetensors file, which is whole or not there.

        Raises:
            DiskError: the file system refuses.
        """
        from segue.models.labelled import write_labelled
        from segue.temporal.bank_parts import parted

        tensors, said = parted(bank)
        said |= {"model": self.model.name, "sha256": self.model.fingerprint, "solver": self.solver}
        said |= {"size": list(self.size)}
        write_labelled(path, tensors, kind=FORMAT, label="run", said=said)

    def load(self, path: Path, schedule: Schedule, *, start: int = 0, terms: int = 1) -> Bank:
        """The anchors in a file, if they can be looked at in this run.

        Args:
            path: of the file.
            schedule: of this run.
            start: the first step that is run.
            terms: of guidance.

        Raises:
            ModelError: there is no such file, or it is damaged, or no bank.
            TaskError: it is of another model, schedule, size or guidance; the message says which.
        """
        import torch

        from segue.models.labelled import read_labelled
        from segue.temporal.bank_parts import joined

        tensors, said = read_labelled(path, kind=FORMAT, label="run", wanted=_WANTED)
        try:
            bank = joined(tensors, said)
            model, sha256, solver = (str(said[name]) for name in ("model", "sha256", "solver"))
            width, height = said["size"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise CheckpointError(f"{path} is damaged: it is no whole bank. {_WANTED}") from None
        own, other = ", ".join(sorted(bank.controls)), ", ".join(sorted(self.controls))
        if own != other:
            raise TaskError(
                f"the bank {path} was recorded with control {own or 'none'}, and this run has {other or 'none'}"
            )
        if sha256 != self.model.fingerprint:
            raise TaskError(
                f"the bank {path} was recorded with the model {model} ({sha256[:12]}), and this is {self.model.name} "
                f"({self.model.fingerprint[:12]}): take that model, or record it anew"
            )
        if (width, height) != self.size:
            raise TaskError(
                f"the bank {path} was recorded at {width}x{height}, and this run is {self.size[0]}x{self.size[1]}: "
                "take its size, or record it anew"
            )
        codec = self.model.codec
        shape = (codec.channels, height // codec.scale, width // codec.scale)
        for anchor in bank.anchors:
            if tuple(anchor.latents.shape[1:]) != shape:
                raise CheckpointError(
                    f"{path} is damaged: expected latents of {shape} for {width}x{height} pixels, and there are such "
                    f"of {tuple(anchor.latents.shape[1:])}; record it anew"
                )
        if solver != self.solver:
            raise TaskError(f"the bank {path} was recorded with the solver {solver}, and this run takes {self.solver}")
        if bank.terms != terms:
            raise TaskError(
                f"the bank {path} was recorded with {bank.terms} terms of guidance, and this run has {terms}: "
                "guide both, or neither"
            )
        try:
            bank.check(schedule.step(torch.arange(len(schedule)))[0], start)
        except TaskError as error:
            raise TaskError(f"the bank {path} does not fit this run: {error}") from None
        return bank
