"""What the benchmarks share: timing in turns, and results written whole into files and pages."""

import os
import pathlib
import platform
import statistics
import time

import keras
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def in_turns(functions, rounds):
    """Seconds of each function in each round, after one that isn't counted.

    Args:
        functions: Dict of functions by name.
        rounds: Number of rounds that count.

    Returns:
        A dict of lists by name.
    """
    times = {name: [] for name in functions}
    for number in range(rounds + 1):
        # The order turns round, so that none always comes behind the same other.
        for name in list(functions) if number % 2 else reversed(functions):
            start = time.perf_counter()
            functions[name]()
            if number:
                times[name].append(time.perf_counter() - start)
    return times


def median_ratio(times, other):
    """Median over the rounds of what one took, divided by what another took in that round."""
    return statistics.median(ratios(times, other))


def ratios(times, other):
    """What one took in each round, divided by what another took in it."""
    return [a / b for a, b in zip(times, other, strict=True)]


def machine():
    """What the figures of a run depend on."""
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def write(path, text):
    """Writes a file whole or not at all."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def insert(text, page, name):
    """Puts a benchmark's text between `<!-- name -->` and `<!-- /name -->` in a page.

    Args:
        text: Markdown.
        page: Path of the page from the project's root.
        name: Name of the benchmark.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    document = (ROOT / page).read_text()
    if begin not in document or end not in document:
        raise ValueError(f"{page} has no lines {begin!r} and {end!r} to put the results between.")
    before, rest = document.split(begin)
    write(ROOT / page, f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")
