"""The command `segue`, and how its errors are said."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError

from segue.errors import InterruptedRunError, SegueError, TaskError

USAGE, FAILED, INTERNAL, INTERRUPTED = 2, 1, 70, 130
TRACEBACK = "SEGUE_TRACEBACK"
"""Environment variable that shows where an error came from."""

VERBS = {
    "image": "Make one picture from a prompt.",
    "transition": "Make a film through the pictures of two or more prompts.",
    "rerun": "Make a result again, byte for byte, from the JSON beside it.",
    "models": "List the models that come with this installation.",
    "doctor": "Say what this machine has, what is missing, and what to do.",
    "train": "Train a model by one of the recipes that ship with Segue.",
}


def application() -> App:
    """The command with its verbs; a verb's module is imported when it is used."""
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
        code = application()(list(sys.argv[1:] if arguments is None else arguments))
        return code if isinstance(code, int) else 0
    except CycloptsError as error:
        message = _first_line(error)
        where = " ".join(["segue", *(error.command_chain or ())])
        return _failed(f"{message[:1].lower()}{message[1:]}; see {where} --help", USAGE)
    except InterruptedRunError as error:
        return _failed(str(error), INTERRUPTED, kind="")
    except TaskError as error:
        return _failed(str(error), USAGE)
    except SegueError as error:
        return _failed(str(error), FAILED)
    except KeyboardInterrupt:
        return _failed("interrupted; there is nothing to keep yet", INTERRUPTED, kind="")
    except BrokenPipeError:
        # Nobody reads stdout any more; without this, Python complains once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return _failed("out of memory: choose a smaller --size, or a smaller --max-batch", FAILED)
        reason = f"{type(error).__name__}: {_first_line(error)}"
        return _failed(f"this should not happen ({reason}); {TRACEBACK}=1 shows where, please report it", INTERNAL)


def _failed(message: str, code: int, kind: str = "error: ") -> int:
    if os.environ.get(TRACEBACK):
        traceback.print_exc()
    print(f"segue: {kind}{message}", file=sys.stderr)
    return code


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else "no message"
