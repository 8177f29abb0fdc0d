"""The time of each operator, from what runtimes print as they run a file."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

from keras_distill.tflite import targets
from keras_distill.tflite.inspect import Inspection

from keras_distill._markdown import table

_CSV = re.compile(r"^(?:.*\s)?(\d+),([A-Za-z0-9_-]+),(\d+)\s*$")
_TOOK = re.compile(r"(?:^|\s)([A-Za-z0-9_-]+) took (\d+) ticks")


@dataclasses.dataclass(frozen=True)
class Event:
    """An operator that ran.

    Attributes:
        operator: Its name, such as `"CONV_2D"`.
        time: How long it took, in the unit of the profile.
        node: Its index in the file, `None` where the log doesn't say.
    """

    operator: str
    time: float
    node: int | None = None


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a log says of operators.

    Attributes:
        events: `Event`s in the order of the log.
        unit: `"ticks"` of the board's clock, or `"ms"`.
    """

    events: tuple[Event, ...]
    unit: str

    def of(self, found: Inspection) -> list[float | None]:
        """The mean time of each operator of a file, `None` for those that a delegate ran.

        Args:
            found: The file's `Inspection`.

        Raises:
            ValueError: The log is that of another file.
        """
        wanted = [operator.name for operator in found.operators if operator.subgraph == 0]
        more = [None] * (len(found.operators) - len(wanted))
        if any(event.node is not None for event in self.events):
            return [*self._by_node(wanted), *more]
        got = [event.operator for event in self.events]
        turns, rest = divmod(len(got), len(wanted))
        if rest or got != wanted * turns:
            raise ValueError(
                f"The log is that of another file: it has {_shortened(got)}, the file has "
                f"{_shortened(wanted)}. Files with loops can't be profiled operator by operator."
            )
        times = [event.time for event in self.events]
        return [sum(times[i :: len(wanted)]) / turns for i in range(len(wanted))] + more

    def _by_node(self, wanted):
        times: list[float | None] = [None] * len(wanted)
        for event in self.events:
            if event.node is None:
                continue
            if event.node >= len(wanted) or event.operator != wanted[event.node]:
                raise ValueError(
                    f"The log is that of another file: node {event.node} is {event.operator} in "
                    f"the log, of {_shortened(wanted)} in the file."
                )
            times[event.node] = (times[event.node] or 0.0) + event.time
        return times

    def __str__(self) -> str:
        total = sum(event.time for event in self.events) or 1.0
        names = dict.fromkeys(event.operator for event in self.events)
        sums = {
            name: [event.time for event in self.events if event.operator == name] for name in names
        }
        rows = [
            (name, len(times), f"{sum(times):,.6g}", f"{sum(times) / total:.1%}")
            for name, times in sorted(sums.items(), key=lambda item: -sum(item[1]))
        ]
        return table(("operator", "times run", self.unit, "share"), rows)


def read(log: str) -> Profile:
    """What a log says of operators.

    Args:
        log: Text that TFLite Micro's `MicroProfiler` or a kit's `Profile` printed (`LogCsv` or
            `Log`), or the "Run Order" of LiteRT's `benchmark_model --enable_op_profiling=true`,
            among whatever else was printed.

    Raises:
        ValueError: It has none of them.
    """
    lines = log.splitlines()
    for form, unit in ((_benchmark, "ms"), (_ticks, "ticks")):
        events = tuple(form(lines))
        if events:
            return Profile(events, unit)
    raise ValueError(
        "The log has no operators. It must have lines that TFLite Micro's MicroProfiler prints "
        '("0,CONV_2D,1234" or "CONV_2D took 1234 ticks"), which a library built with '
        "TF_LITE_STRIP_ERROR_STRINGS doesn't, or the run order of "
        "`benchmark_model --enable_op_profiling=true`."
    )


def load(path: str | os.PathLike) -> Profile:
    """What a log says of operators, as `read`, of whose bytes some may be no text.

    Args:
        path: The log.

    Raises:
        ValueError: There is no such file, or it has no operators.
    """
    log = pathlib.Path(path)
    if not log.is_file():
        raise ValueError(f"There is no file {log}. Name the log that the board or phone printed.")
    return read(log.read_text(errors="replace"))


def _ticks(lines: Sequence[str]) -> Iterator[Event]:
    for line in lines:
        found = _CSV.match(line)
        if found:
            yield Event(found[2], float(found[3]))
            continue
        found = _TOOK.search(line)
        if found:
            yield Event(found[1], float(found[2]))


def _benchmark(lines: Sequence[str]) -> Iterator[Event]:
    """The last table "Run Order": the first one of a log may be that of the initialization."""
    starts = [i for i, line in enumerate(lines) if "= Run Order =" in line]
    tables = [list(_rows(lines[start + 1 :])) for start in starts]
    tables = [rows for rows in tables if any(event.node is not None for event in rows)] or tables
    return iter(tables[-1] if tables else [])


def _rows(lines):
    header: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.split("\t")]
        cells = cells[1:] if cells and not cells[0] else cells
        if not header:
            if {"[node type]", "[avg ms]", "[Name]"} <= set(cells):
                header = cells
            continue
        if len(cells) != len(header):
            return
        row = dict(zip(header, cells, strict=True))
        name, _, index = row["[Name]"].rpartition(":")
        own = bool(name) and index.isdigit() and not name.startswith("Delegate/")
        time = row["[avg ms]"]
        if not re.fullmatch(r"[\d.e+-]*\d", time):
            raise ValueError(f"Line {line.strip()!r} has no time in '[avg ms]', but {time!r}.")
        yield Event(row["[node type]"], float(time), int(index) if own else None)


def shown(found: Inspection, profile: Profile) -> str:
    """A file's operators with their times, and what else the log has.

    Args:
        found: The file's `Inspection`.
        profile: The log's.
    """
    times = profile.of(found)
    known = [time for time in times if time is not None]
    others = (
        [event for event in profile.events if event.node is None] if profile.unit == "ms" else []
    )
    total = sum(known) + sum(event.time for event in others) or 1.0
    rows = [
        (
            operator.name,
            targets.layer_of(operator.layer),
            "" if operator.macs is None else f"{operator.macs:,}",
            "" if time is None else f"{time:,.6g}",
            "" if time is None else f"{time / total:.1%}",
        )
        for operator, time in zip(found.operators, times, strict=True)
    ]
    rows += [
        (f"{event.operator} (delegate)", "", "", f"{event.time:,.6g}", f"{event.time / total:.1%}")
        for event in others
    ]
    return table(("operator", "layer", "MACs", profile.unit, "share"), rows)


def _shortened(names):
    text = ", ".join(names[:4])
    return f"{len(names)} operators ({text}{', ...' if len(names) > 4 else ''})"
