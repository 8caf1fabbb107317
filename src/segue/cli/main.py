"""The command `segue`, and how its errors are said."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from segue.errors import ExhaustedRunError, InterruptedRunError, SegueError, TaskError

if TYPE_CHECKING:
    from cyclopts import App

USAGE, FAILED, INTERNAL, INTERRUPTED = 2, 1, 70, 130
TRACEBACK = "SEGUE_TRACEBACK"
"""Environment variable that shows where an error came from."""

VERBS = {
    "image": "Make one picture from a prompt.",
    "transition": "Make a film through the pictures of two or more prompts.",
    "upscale": "Make a picture or a film larger.",
    "deflicker": "Make the frames of a film agree, so that nothing flickers.",
    "stylize": "Draw a film anew after words and pictures, without flicker.",
    "edit": "Change a picture or a film, and keep the rest of it.",
    "animate": "Make a clip of words or of a picture.",
    "live": "Show a film without an end that turns to the prompts that are typed.",
    "evaluate": "Say how smooth a film is, in numbers that are explained.",
    "study": "Make a blind page of films for people to judge, or count what they said.",
    "rerun": "Make a result again, byte for byte, from the JSON beside it.",
    "models": "List the models on this machine, or say what one of them knows.",
    "doctor": "Say what this machine has, what is missing, and what to do.",
    "train": "Train a model by one of the recipes that ship with Segue.",
}


def application() -> App:
    """The command with its verbs; a verb's module is imported when it is used."""
    from importlib.metadata import version

    from cyclopts import App

    app = App(
        name="segue",
        help="Temporally coherent video from latent diffusion models.",
        version=lambda: version("segue"),
        help_format="plaintext",
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for name, text in VERBS.items():
        app.command(f"segue.cli.{name}:{name}", name=name, help=text)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and say what went wrong, in a line on stderr. Returns the exit code.

    0 is success, 2 a fault in what was asked for, 1 one of the machine, the model or the disk, 130 an interruption, and
    70 a fault of Segue.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal of another alphabet must not end a run
        code = application()(list(sys.argv[1:] if arguments is None else arguments))
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return _said("interrupted; nothing was written", INTERRUPTED)
    except ExhaustedRunError as error:
        return _said(f"error: {error}", FAILED)
    except InterruptedRunError as error:
        return _said(str(error), INTERRUPTED)
    except SegueError as error:
        return _said(f"error: {error}", USAGE if isinstance(error, TaskError) else FAILED)
    except BrokenPipeError:
        # Nobody reads stdout any more; without this, Python complains once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """What others raise: the parser of the command line, a machine without memory, and our own mistakes."""
    from cyclopts import CycloptsError

    reason = str(error).strip().partition("\n")[0].rstrip(".") or "no message"
    if isinstance(error, CycloptsError):
        where = " ".join(["segue", *(error.command_chain or ())])
        from segue.cli.fields import of_a_curve

        return _said(f"error: {reason[:1].lower()}{reason[1:]}{of_a_curve(reason)}; see {where} --help", USAGE)
    kind = type(error).__name__
    if kind in ("MemoryError", "OutOfMemoryError"):
        advice = "choose a smaller --size or --max-batch; segue doctor --model says what each would take"
        return _said(f"error: out of memory: {advice}", FAILED)
    advice = f"{TRACEBACK}=1 shows where, please report it"
    return _said(f"error: this should not happen ({kind}: {reason}); {advice}", INTERNAL)


def _said(message: str, code: int) -> int:
    if os.environ.get(TRACEBACK):
        traceback.print_exc()
    print(f"segue: {message}", file=sys.stderr)
    return code
