"""The `drive` command: one small file per verb beside this one.

A verb is a module with a docstring (usage and examples: its help), `HELP` (one line) and `run(argv: list[str]) -> int`.
Help is read from the file's text, so that `drive --help` imports no verb and nothing heavy.
"""

from __future__ import annotations

import ast
import difflib
import errno
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import drive
from drive.core.errors import DriveError

_WAYS_OUT = {
    errno.ENOSPC: "free some space on that disk and run the command again",
    errno.EDQUOT: "free some of your quota and run the command again",
    errno.EACCES: "choose a folder you may read and write",
    errno.EROFS: "choose a folder on a disk that is not read-only",
}


COMPILES = ("data", "demo", "eval", "resume", "serve", "train")  # verbs that run compiled kernels


class Verb(NamedTuple):
    """One verb as its file describes it."""

    module: str
    line: str
    doc: str


def verbs(folder: Path = Path(__file__).parent) -> dict[str, Verb]:
    """Name to Verb of every module in `folder` that sets HELP, in alphabetical order; nothing is imported."""
    found = {}
    for file in sorted(folder.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["HELP"]:
                found[file.stem.replace("_", "-")] = Verb(file.stem, ast.literal_eval(node.value), ast.get_docstring(tree) or "")
    return found


def main(argv: list[str] | None = None) -> int:
    """Run `drive` with `argv` (default: the process's) and return its exit code.

    0 done, 1 the verb found a fault, 2 a mistake in the command, its settings or its inputs, 130 interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    known = verbs()
    if not argv or argv[0] in ("-h", "--help", "help"):
        return guarded(lambda: _show(_overview(known)))
    if argv[0] in ("-V", "--version"):
        print(f"drive {drive.__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in known:
        return _complain(f"no verb {name!r}{_nearest(name, known)}; `drive --help` lists them")
    # Read when torch is loaded. Spinning threads make a step twenty times slower as soon as another process takes a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    verb = known[name]
    if name in COMPILES and not {"-h", "--help"} & set(rest) and not Path(os.environ["NUMBA_CACHE_DIR"]).is_dir():
        print("first use: numeric kernels are compiled once, which takes a minute or two", file=sys.stderr)
    if "-h" in rest or "--help" in rest:
        return guarded(lambda: _show(f"drive {name}: {verb.line}\n\n{verb.doc}"))
    return guarded(lambda: importlib.import_module(f"drive.cli.{verb.module}").run(rest))


def _show(text: str) -> int:
    print(text, flush=True)
    return 0


def guarded(action: Callable[[], int]) -> int:
    """Run `action`; an error that is the user's to mend becomes one line on stderr and an exit code.

    With DRIVE_DEBUG=1 in the environment the traceback comes through.
    """
    if os.environ.get("DRIVE_DEBUG") == "1":
        return action()
    try:
        return action()
    except DriveError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        print("\ndrive: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `drive ... | head`: whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _WAYS_OUT:
            raise
        return _complain(f"{error.strerror}: {error.filename or 'the output folder'}: {_WAYS_OUT[error.errno]}")


def _complain(message: str) -> int:
    print(f"drive: error: {message}", file=sys.stderr)
    return 2


def _nearest(name: str, known: dict[str, Verb]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _overview(known: dict[str, Verb]) -> str:
    width = max(map(len, known), default=0)
    lines = [f"  {name:<{width}}  {verb.line}" for name, verb in known.items()]
    return "\n".join(
        [
            "usage: drive VERB [key=value ...] [options]",
            "",
            "A research toolkit for vision-language-action driving.",
            "",
            "verbs:",
            *lines,
            "",
            "`drive VERB --help` gives its examples; `drive --version` its version.",
        ]
    )
