"""Runs an example with several seeds and writes its results beside it.

python examples/record.py tabular_regression housing.csv
python examples/record.py tabular_regression housing.csv labels=500 --note "500 known prices."
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import pathlib
import shlex
import sys
import time

import numpy as np

from keras_distill._files import write_text
from keras_distill.evaluation.report import versions
from keras_distill.tuning.training import summary

FOLDER = pathlib.Path(__file__).parent


def record(name, arguments=(), seeds=5, note=None, folder=FOLDER / "results"):
    """Runs `main` of an example once for each seed.

    Args:
        name: Name of the example.
        arguments: Arguments of its `main`; those with a name as `name=value`, the value in JSON.
        seeds: Number of seeds, from 0.
        note: What a reader of the results must know.
        folder: Folder in which `<name>.json` is written, anew after each seed.

    Returns:
        The results: each seed's, their mean and their standard deviation, and what is gained.
    """
    example = importlib.import_module(name)
    named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    named = {key: json.loads(value) for key, value in named.items()}
    places = [argument for argument in arguments if "=" not in argument]
    path = pathlib.Path(folder, f"{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    runs, seconds = [], []
    for seed in range(seeds):
        start = time.perf_counter(), sum(os.times()[:4])
        runs.append(example.main(*places, **named, seed=seed))
        ends = time.perf_counter(), sum(os.times()[:4])
        seconds.append([round(b - a, 1) for a, b in zip(start, ends, strict=True)])
        results = {
            "command": shlex.join(["python", "examples/record.py", *sys.argv[1:]]),
            "note": note,
            "seeds": list(range(seed + 1)),
            "seconds": dict(zip(("wall", "cpu"), zip(*seconds, strict=True), strict=True)),
            "versions": versions(),
            **statistics(runs, getattr(example, "LESS_IS_BETTER", False)),
            "runs": runs,
        }
        write_text(path, json.dumps(results, indent=2) + "\n")
    return results


def alone(values):
    """The name of the student without a teacher: on labels, or where there are none, alone."""
    return next((key for key in ("student on labels", "student alone") if key in values), None)


def statistics(runs, less_is_better=False):
    """Mean and standard deviation over seeds, and what the file gains over training on labels.

    Args:
        runs: The results of each seed. The gain is the mean of the paired differences between
            `"distilled, int8"` (or `"student distilled"`, where no file is made) and the student
            `alone`, with half its 95 % interval (Student's t); its share of the gap is its ratio
            to the teacher's lead over that student, `None` without a lead.
        less_is_better: Whether the figures are distances or errors: a gain is what they fall by.
    """
    values = {key: [run[key] for run in runs] for key in runs[0]}
    result = {
        "mean": {key: float(np.mean(v)) for key, v in values.items()},
        "standard_deviation": {
            key: float(np.std(v, ddof=1)) if len(v) > 1 else None for key, v in values.items()
        },
    }
    base = values.get(alone(values))
    found = [key for key in ("distilled, int8", "student distilled") if key in values]
    if base and found:
        sign = -1 if less_is_better else 1
        mean, half = summary((sign * np.subtract(values[found[0]], base)).tolist())
        gap = float(np.mean(sign * np.subtract(values["teacher"], base)))
        share = mean / gap if gap > 0 else None
        result["gain"] = {
            "of": found[0], "mean": mean, "half_interval": half, "share_of_gap": share
        }  # fmt: skip
        if less_is_better:
            result["gain"]["less_is_better"] = True
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", help="name of the example")
    parser.add_argument("arguments", nargs="*", help="arguments of its main()")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--note", help="what a reader of the results must know")
    options = parser.parse_args()
    sys.path.insert(0, str(FOLDER))
    print(json.dumps(record(**vars(options)), indent=2))
