"""Help, wrong flags, and errors in one line."""

import logging
import pathlib
import tomllib

import pytest
import tensorflow as tf
from absl import logging as absl_logging

from keras_distill import __version__, cli
from keras_distill.cli import messages


def test_usage_lists_every_command(capsys):
    assert cli.main([]) == cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f"  {name} " in out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"keras-distill {__version__}\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_says_what_each_flag_is_for(name, capsys):
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"`keras-distill {name}`" in out
    assert "--[no]json" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "keras-distill: there is no command 'trian'. Did you mean train?"),
        (["train", "--epoch=3"], "Unknown command line flag 'epoch'. Did you mean: epochs ?"),
        (["train", "--epochs=many"], "--epochs"),
        (["train", "--epochs=0"], "--epochs"),
        (["train", "--mix=mixdown"], "--mix"),
        (["train", "--flagfile=none.flags"], "none.flags"),
        (["train", "somewhere"], "unexpected argument 'somewhere'"),
    ],
)
def test_wrong_flags_are_one_line_and_exit_code_2(arguments, says, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def test_a_defect_is_no_wrong_input(monkeypatch):
    from keras_distill.cli import inspect

    def broken(*_):
        raise AssertionError("defect")

    monkeypatch.setattr(inspect, "main", broken)
    with pytest.raises(AssertionError, match="defect"):
        cli.main(["inspect", "x.tflite"])


def test_one_line():
    def fail(_):
        raise ValueError("image a.png: broken")

    dataset = tf.data.Dataset.range(1).map(lambda x: tf.numpy_function(fail, [x], tf.int64))
    with pytest.raises(tf.errors.OpError) as error:
        next(iter(dataset))
    assert cli.one_line(error.value) == "image a.png: broken"
    nested = "Exception encountered when calling A.call().\n\n\x1b[1mbad shape\x1b[0m\n\nArguments"
    assert cli.one_line(ValueError(nested)) == "bad shape"


def test_every_package_is_installed():
    root = pathlib.Path(__file__).parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        path.parent
        for name in ("keras_distill", "tflite")
        for path in root.glob(f"{name}/**/__init__.py")
    }
    names = [".".join(folder.relative_to(root).parts) for folder in found]
    names = [f"keras_distill.{n}" if n.startswith("tflite") else n for n in names]
    assert set(names) <= set(settings["packages"])


@pytest.mark.parametrize("verbosity", [-1, 0, 1])
def test_a_command_leaves_no_handler_behind(verbosity, capsys):
    before = list(logging.getLogger().handlers)
    with messages.to_stderr(verbosity):
        absl_logging.warning("one %d", 1)
        absl_logging.info("two")
    assert logging.getLogger().handlers == before
    lines = capsys.readouterr().err.splitlines()
    # The file of this test isn't the command's: only with 1 are others shown.
    assert [line.split(" ", 1)[1] for line in lines] == ["warning: one 1", "two"] * (verbosity == 1)
