"""The search on validation data, and the report of a run."""

import contextlib
import json
import signal
import warnings

import numpy as np
import pytest

import keras_distill
from keras_distill import cli
from keras_distill.cli.plan import Plan

DATA = ["--data=digits.npz", "--verbosity=-1"]
STUDENT = "--student=nets_for_test:small"


@pytest.fixture(scope="module")
def searched(trained):
    arguments = [*DATA, f"--teacher={trained / 'teacher.keras'}", STUDENT, "--epochs=1"]
    arguments += ["--trials=3", "--search=temperature,learning_rate", "--output=search"]
    assert cli.main(["tune", *arguments]) == 0
    return trained.parent / "search"


@pytest.mark.long
def test_tune_leaves_flags_for_train(searched, capsys):
    lines = (searched / "best.flags").read_text().split()
    flags = dict(line.split("=") for line in lines if "=" in line)
    assert {"--data", "--teacher", "--student", "--alpha"} < flags.keys()
    assert not [line for line in lines if line.startswith("--no")]
    assert 1 <= float(flags["--temperature"]) <= 16
    assert 1e-4 <= float(flags["--learning_rate"]) <= 3e-2
    assert cli.main(["train", f"--flagfile={searched / 'best.flags'}", "--output=tuned"]) == 0
    settings = (searched.parent / "tuned" / "settings.flags").read_text()
    assert settings == (searched / "best.flags").read_text()


@pytest.mark.long
def test_a_search_goes_on(searched, capsys):
    assert cli.main(["tune", f"--resume={searched}", "--json", "--verbosity=-1"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["monitor"] == "val_accuracy"
    assert again["value"] >= again["start"]
    flags = (searched / "best.flags").read_text()
    assert f"--temperature={again['best']['temperature']!r}" in flags


def test_ctrl_c_that_is_swallowed_stops_a_search(trained, capsys, monkeypatch):
    def swallow(distiller):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(keras_distill.Distiller, "reset_metrics", swallow)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        arguments = [*DATA, f"--teacher={trained / 'teacher.keras'}", STUDENT, "--epochs=1"]
        assert cli.main(["tune", *arguments, "--trials=3", "--output=no_end"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.endswith("Go on with: keras-distill tune --resume=no_end\n")


@pytest.mark.long
@pytest.mark.parametrize(("loss", "search"), [("DIST", "alpha"), ("LogitMSE", "alpha")])
def test_what_is_not_searched_is_left_to_the_loss(trained, monkeypatch, loss, search):
    seen = []
    monkeypatch.setattr(Plan, "distiller", recorded(Plan.distiller, seen))
    arguments = [*DATA, f"--teacher={trained / 'teacher.keras'}", STUDENT, "--epochs=1"]
    arguments += [f"--loss={loss}", f"--search={search}", "--trials=1", f"--output=tune_{loss}"]
    assert cli.main(["tune", *arguments]) == 0
    assert seen == [None, None]  # Once to check the settings, once for the trial.


@pytest.mark.long
def test_a_search_starts_from_the_temperature_of_the_loss(trained, monkeypatch):
    seen = []
    monkeypatch.setattr(Plan, "distiller", recorded(Plan.distiller, seen))
    arguments = [*DATA, f"--teacher={trained / 'teacher.keras'}", STUDENT, "--epochs=1"]
    arguments += ["--loss=DIST", "--search=temperature", "--trials=1", "--output=tune_from_1"]
    assert cli.main(["tune", *arguments]) == 0
    assert seen == [None, 1.0]


def recorded(distiller, seen):
    def record(plan, teacher, temperature, alpha):
        seen.append(temperature)
        return distiller(plan, teacher, temperature, alpha)

    return record


@pytest.mark.long
def test_a_search_reads_stored_answers(trained):
    arguments = [*DATA, f"--teacher={trained / 'teacher.keras'}", STUDENT, "--epochs=1"]
    arguments += ["--answers=searched_answers", "--views=2", "--augment=crop", "--trials=2"]
    assert cli.main(["tune", *arguments, "--search=temperature", "--output=tune_stored"]) == 0
    assert (trained.parent / "searched_answers" / "manifest.json").is_file()
    # The same answers serve at the temperature that was found.
    flags = trained.parent / "tune_stored" / "best.flags"
    assert cli.main(["train", f"--flagfile={flags}", "--output=tuned_stored"]) == 0


def test_a_search_for_values_needs_no_weight_on_the_labels(workplace, capsys):
    lines = [f"{i % 7},{i % 5},{i % 7 - 0.5 * (i % 5)}" for i in range(80)]
    (workplace / "values.csv").write_text("\n".join(["a,b,y", *lines]))
    arguments = ["--data=values.csv", "--label_column=y", "--teacher=nets_for_test:large", STUDENT]
    arguments += ["--epochs=1", "--trials=1", "--alpha=0", "--search=learning_rate", "--json"]
    assert cli.main(["tune", *arguments, "--output=tune_values", "--verbosity=-1"]) == 0
    assert json.loads(capsys.readouterr().out)["monitor"] == "val_mse"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--search=warmth"], "--search must be of temperature, alpha, learning_rate"),
        (["--loss=LogitMSE"], "the loss between the outputs has no temperature"),
        (["--answers=a", "--top_k=3"], "answers of --top_k hold for one temperature alone"),
    ],
)
def test_tune_says_what_is_wrong(arguments, says, capsys):
    common = [*DATA, "--teacher=nets_for_test:large", STUDENT, "--output=no_search"]
    assert cli.main(["tune", *common, *arguments]) == 2
    assert says in capsys.readouterr().err


def test_report(trained, capsys):
    assert cli.main(["report", str(trained), "--output=page", "--title=Digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": "page"}
    written = json.loads((trained.parent / "page" / "report.json").read_text())
    assert written["title"] == "Digits"
    stored = json.loads((trained / "comparison.json").read_text())["candidates"]
    assert [c["accuracy"] for c in written["candidates"]] == [c["accuracy"] for c in stored]
    # The names of the candidates: their colours.
    assert set(written["histories"]) == {c["name"] for c in stored}
    assert len(written["histories"]["student distilled"]["soft_targets"]) == 8
    assert written["settings"]["learning_rate"] == 0.01
    assert "<title>Digits" in (trained.parent / "page" / "report.html").read_text()


@pytest.mark.long
def test_a_report_raises_no_warnings(trained):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        flags = ["--output=quiet", "--latency_runs=2", "--verbosity=1"]
        with np.errstate(all="raise", under="ignore"):
            assert cli.main(["report", str(trained), *flags]) == 0


def test_report_says_what_is_wrong(capsys, workplace):
    assert cli.main(["report", "nowhere"]) == 2
    assert "no run in nowhere" in capsys.readouterr().err
    (workplace / "begun").mkdir(exist_ok=True)
    (workplace / "begun" / "settings.flags").write_text("--data=digits.npz\n--teacher=a:b\n")
    assert cli.main(["report", "begun"]) == 2
    assert "isn't finished" in capsys.readouterr().err
