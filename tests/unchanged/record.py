"""Computes what must not change, in a process of its own, where nothing else has been traced.

python tests/unchanged/record.py exports fits saved           # rewrites the recorded values
python tests/unchanged/record.py --print exports saved        # prints them as JSON
python tests/unchanged/record.py --print exports=CASE,CASE    # prints those of some cases

Record again only after a change that is meant to alter exported files or training, and say in the
commit why it does. `saved` rewrites the results of training on alone: `distiller.keras` and
`distiller.weights.h5` were saved by an earlier version, and stay.
"""

import gc
import importlib
import json
import os
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The same arithmetic whatever the number of cores.
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"

import small


def main(arguments):
    warnings.simplefilter("ignore")
    # Each case starts with a search for garbage, which what was imported isn't.
    gc.freeze()
    for argument in [a for a in arguments if not a.startswith("-")]:
        name, _, cases = argument.partition("=")
        compute = importlib.import_module(name).compute
        found = {
            "platform": small.platform(),
            "cases": compute(cases.split(",")) if cases else compute(),
        }
        if "--print" in arguments:
            print(json.dumps(found))
        else:
            (small.HERE / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
