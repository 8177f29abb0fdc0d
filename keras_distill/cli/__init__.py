"""The command `keras-distill`: what the library does, from a shell.

Each command is a module of this package. Its docstring is its help, `command_flags` declares its
flags, and its function `main(flags, arguments, console)` returns what `--json` prints. The module
imports TensorFlow, so it is imported only to run the command: help and wrong flags come first.
"""

import ast
import difflib
import importlib
import json
import pathlib
import re
import sys
from inspect import cleandoc

from absl import flags as absl_flags

from keras_distill.cli import command_flags, messages

COMMANDS = (
    *("demo", "train", "store", "export", "evaluate", "report", "tune"),
    *("inspect", "prove", "profile"),
)
USAGE = 2
INTERRUPTED = 130
# What a wrong file, flag or dataset raises. Anything else is a defect of the program.
EXPECTED = (absl_flags.Error, ValueError, OSError, ImportError)


def main(argv: list[str]) -> int:
    """Runs the command with the given arguments.

    Args:
        argv: The arguments, without the name of the program.

    Returns:
        Exit code: 0, or 2 if a flag, a file or the data are wrong or an exported file doesn't
        compute what its model does, or 130 after Ctrl-C.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    name, *arguments = argv
    if name == "--version":
        from keras_distill._version import __version__

        print(f"keras-distill {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return _fail("keras-distill", f"there is no command {name!r}.{hint}")
    try:
        return _run(name, arguments)
    except KeyboardInterrupt as error:
        print(f"\nInterrupted. {error}".rstrip(), file=sys.stderr)
        return INTERRUPTED


def _run(name: str, arguments: list[str]) -> int:
    flags = command_flags.of(name)
    try:
        rest = flags([name, *arguments])[1:]
    except absl_flags.Error as error:
        return _fail(f"keras-distill {name}", one_line(error))
    if flags["help"].value:
        print(_help(name, flags))
        return 0
    with messages.held_back():
        command = importlib.import_module(f"keras_distill.cli.{name}")
    from rich.console import Console

    try:
        # With --json, standard output is for machines alone.
        console = Console(stderr=flags["json"].value, highlight=False)
        with messages.to_stderr(flags["verbosity"].value):
            result = command.main(flags, rest, console)
    except Exception as error:
        if not _is_expected(error) or flags["verbosity"].value > 0:
            raise
        return _fail(f"keras-distill {name}", one_line(error))
    if flags["json"].value:
        print(json.dumps(result, indent=2))
    return 0


def one_line(error: BaseException) -> str:
    """The message of an exception in one line, without what only its maker's stack explains."""
    text = re.sub(r"\x1b\[\d+m", "", str(error)) or type(error).__name__
    # Python errors inside a tf.data pipeline come with the traceback in their message.
    inside = re.search(r"(?:ValueError|TypeError|OSError): (.+)", text)
    if inside:
        return inside.group(1).strip()
    if text.startswith("Graph execution error:"):
        # What is wrong stands after the places in the code, and before those in the graph.
        return text.split("\n\t [[")[0].strip().split("\n")[-1]
    text = re.sub(r"^Exception encountered when calling [^\n]+\n", "", text.strip())
    return text.strip().split("\n")[0]


def _is_expected(error: Exception) -> bool:
    # Loaded by whatever could have raised them.
    errors = sys.modules.get("tensorflow.python.framework.errors_impl")
    return isinstance(error, EXPECTED) or (errors is not None and isinstance(error, errors.OpError))


def _fail(prefix: str, message: str) -> int:
    print(f"{prefix}: {message}", file=sys.stderr)
    return USAGE


def _usage() -> str:
    lines = ["usage: keras-distill COMMAND [--flag=value ...]", ""]
    for name in COMMANDS:
        summary = _docstring(name).split("\n")[0].split(": ", 1)[1]
        lines.append(f"  {name:10}{summary}")
    lines += ["", "keras-distill COMMAND --help tells more."]
    return "\n".join(lines)


def _docstring(name: str) -> str:
    """A command's help, read without importing what the command needs."""
    source = pathlib.Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return cleandoc(ast.get_docstring(ast.parse(source)) or "")


def _help(name: str, flags: absl_flags.FlagValues) -> str:
    lines = [_docstring(name), "", "flags:"]
    for flag_name in sorted(flags):
        flag = flags[flag_name]
        if flag_name != flag.name:
            continue
        default = "" if flag.default in (None, False, []) else f" Default: {flag.default}."
        form = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}=..."
        lines.append(f"  {form}")
        lines.append(f"      {' '.join(flag.help.split())}{default}")
    return "\n".join(lines)
