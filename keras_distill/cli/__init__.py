"""The command `keras-distill`."""

import sys

from absl import app


def run():
    """Entry point of the command."""
    app.run(_main)


def _main(argv):
    if argv[1:] != ["demo"]:
        print("usage: keras-distill demo", file=sys.stderr)
        sys.exit(2)
    from keras_distill.cli.demo import demo

    demo("runs/demo")
