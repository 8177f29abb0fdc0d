"""Runs an example with several seeds and writes its results beside it.

python examples/record.py tabular_regression housing.csv --seeds 3
python examples/record.py image_classification examples=12000 --note "12,000 of 60,000 images."
"""

import argparse
import importlib
import importlib.metadata
import json
import pathlib
import shlex
import sys
import time

import numpy as np

from keras_distill._files import write_text

FOLDER = pathlib.Path(__file__).parent


def record(name, arguments=(), seeds=3, note=None, folder=FOLDER / "results"):
    """Runs `main` of an example once for each seed.

    Args:
        name: Name of the example.
        arguments: Arguments of its `main`; those with a name as `name=value`, the value in JSON.
        seeds: Number of seeds, from 0.
        note: What a reader of the results must know.
        folder: Folder in which `<name>.json` is written.

    Returns:
        The results: each seed's, their mean and their standard deviation.
    """
    example = importlib.import_module(name)
    start = time.process_time()
    named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    named = {key: json.loads(value) for key, value in named.items()}
    places = [argument for argument in arguments if "=" not in argument]
    runs = [example.main(*places, **named, seed=seed) for seed in range(seeds)]
    results = {
        "command": shlex.join(["python", "examples/record.py", *sys.argv[1:]]),
        "note": note,
        "cpu_seconds": round(time.process_time() - start),
        "versions": {
            package: importlib.metadata.version(package) for package in ("keras", "tensorflow")
        },
        "mean": {key: float(np.mean([run[key] for run in runs])) for key in runs[0]},
        "standard_deviation": {
            key: float(np.std([run[key] for run in runs], ddof=1)) if seeds > 1 else None
            for key in runs[0]
        },
        "runs": runs,
    }
    path = pathlib.Path(folder, f"{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(results, indent=2) + "\n")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", help="name of the example")
    parser.add_argument("arguments", nargs="*", help="arguments of its main()")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--note", help="what a reader of the results must know")
    options = parser.parse_args()
    sys.path.insert(0, str(FOLDER))
    print(json.dumps(record(**vars(options)), indent=2))
