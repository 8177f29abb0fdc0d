"""`compare`: teacher, baseline, students and exported files in one table."""

import dataclasses
import math

import numpy as np

from keras_distill import samples
from keras_distill.evaluation import intervals, metrics, tables
from keras_distill.evaluation import latency as timing
from keras_distill.evaluation import outputs as answers
from keras_distill.evaluation.candidates import as_candidate

#: The metric by which the gap between baseline and teacher is measured.
MAIN = {"classification": "accuracy", "segmentation": "mean_iou", "regression": "r2"}
#: How many samples of largest disagreement with the teacher are kept to be shown.
_SHOWN = 12


@dataclasses.dataclass
class Comparison:
    """Candidates side by side. `compare` makes it; `print` shows it as a table.

    Attributes:
        rows: One dict for each candidate: `"name"`, `"runs"`, the metrics and the costs by name,
            `"intervals"` (95 %, bootstrap over the test set) and, for several runs,
            `"run_values"` of each metric and `"run_intervals"` (95 %, Student's t).
        notes: What a reader of the table must know, as sentences.
        task: `"classification"`, `"segmentation"` or `"regression"`.
        samples: Number of samples.
        teacher: Name of the candidate that the others are compared with, or `None`.
        class_names: Names of the classes, or `None`.
        scores: `metrics.Scores` of each candidate's first run, by name.
        disagreements: For each candidate other than the teacher, the samples on which it is
            farthest from the teacher: dicts of `"sample"`, `"input"`, `"label"`, `"teacher"`,
            `"candidate"` (class and probability, or values) and `"distance"`.
    """

    rows: list
    notes: list
    task: str
    samples: int
    teacher: str | None
    class_names: list | None
    scores: dict
    disagreements: dict

    def table(self):
        """The comparison as a `rich.table.Table`: a line for each metric, a column for each
        candidate."""
        return tables.as_rich(self.rows, self.notes)

    def markdown(self) -> str:
        """The comparison as a table in Markdown."""
        return tables.as_markdown(self.rows, self.notes)

    def to_dict(self) -> dict:
        """Everything but the inputs, as plain types for JSON."""
        return {
            "task": self.task,
            "samples": self.samples,
            "teacher": self.teacher,
            "class_names": self.class_names,
            "candidates": plain(self.rows),
            "per_class": {n: plain(s.per_class) for n, s in self.scores.items() if s.per_class},
            "confusion": {
                n: s.confusion.tolist() for n, s in self.scores.items() if s.confusion is not None
            },
            "reliability": {
                n: plain(s.reliability) for n, s in self.scores.items() if s.reliability
            },
            "disagreements": {
                name: [plain({k: v for k, v in d.items() if k != "input"}) for d in worst]
                for name, worst in self.disagreements.items()
            },
            "notes": self.notes,
        }

    def report(
        self, folder, *, title="Distillation report", histories=None, settings=None, show=None
    ):
        """Writes `report.html`, `report.md` and `report.json` into a folder.

        The HTML file needs nothing else: it holds its pictures. It shows the table; the score
        against bytes and against latency with the Pareto front; training curves; confusion
        matrices; how well confidence is calibrated; the samples on which candidates and teacher
        disagree most; settings and versions.

        Args:
            folder: Folder to write to; made where it doesn't exist.
            title: Title of the report.
            histories: Dict from names to what `fit` returned (or its `history` dict), for the
                training curves. Names of candidates take their colour.
            settings: Dict of what made the candidates (temperature, alpha, seed, ...), to be
                shown.
            show: Function from one sample's input to what is shown of it: a string, an image of
                shape `(height, width)` or `(height, width, 3)`, or a signal of shape
                `(steps, channels)`. For example, from token ids back to text. Defaults to `None`:
                the input itself.

        Returns:
            Path of the folder.

        Raises:
            ImportError: If matplotlib or Jinja2 is missing.
            ValueError: If the folder can't be written. Nothing is left half-written.

        Example:

        >>> history = distiller.fit(x_train, y_train, epochs=10)
        >>> result = keras_distill.evaluation.compare(candidates, (x_test, y_test))
        >>> result.report("report", histories={"distilled": history}, settings={"temperature": 4})
        """
        try:
            from keras_distill.evaluation.report import write_report
        except ModuleNotFoundError as error:
            raise ImportError(
                f"Reports need {error.name}: `pip install keras-distill[report]`."
            ) from error
        return write_report(self, folder, title, histories, settings, show)

    def __rich__(self):
        return self.table()

    def __str__(self):
        return tables.as_text(self.table())


def compare(
    candidates,
    data,
    *,
    teacher="teacher",
    baseline="student on labels",
    task=None,
    from_logits=None,
    missing_label=None,
    class_names=None,
    resamples=1000,
    latency_runs=0,
    batch_size=256,
) -> Comparison:
    """Runs candidates on the same held-out data and puts them side by side.

    Files run in their target's own runtime. Nothing is chosen by what is measured here: give data
    that neither training nor tuning has seen.

    Args:
        candidates: Dict from names to Keras models, `Distiller`s (their student counts), teachers
            of `keras_distill.teachers`, artefacts of `keras_distill.tflite`, or paths of `.keras`
            and `.tflite` files. A list holds several runs of one candidate, trained from
            different seeds: its metrics are means over the runs, with an interval over them.
        data: Held-out inputs and labels: `(x, y)`, a `tf.data.Dataset`, a `keras.utils.PyDataset`
            or another iterable of batches. Labels are class indices or one-hot rows, class
            indices for each position (segmentation), or values (regression).
        teacher: Name of the candidate to which the others are compared. Where there is none of
            this name, agreement and divergence are left out.
        baseline: Name of the candidate trained on the labels alone, from which the recovered gap
            is measured: (candidate - baseline) / (teacher - baseline), of the accuracy, the
            mean IoU or R². Left out where there is none of this name.
        task: `"classification"`, `"segmentation"` or `"regression"`. Defaults to `None`: what
            labels and outputs look like.
        from_logits: Whether the outputs of classifiers are logits. Defaults to `None`: they are
            unless they look like probabilities, decided for each candidate.
        missing_label: Label that stands for "not known", for example `-1` or `255`; such samples
            or positions count for nothing.
        class_names: Names of the classes.
        resamples: Number of test sets drawn for the bootstrap intervals; 0 leaves them out.
        latency_runs: How often each candidate is timed; 0 leaves latency out. One sample at a
            time, one thread, in turns, on this host, in a process of its own.
        batch_size: Samples that a Keras model predicts at a time.

    Returns:
        A `Comparison`.

    Raises:
        TypeError: If a candidate is of another kind.
        ValueError: If labels, outputs and task don't fit.

    Example:

    >>> result = keras_distill.evaluation.compare(
    ...     {"teacher": teacher, "student on labels": baseline, "distilled": student,
    ...      "int8": artefact},
    ...     (x_test, y_test),
    ... )
    >>> print(result)
    """
    if not isinstance(candidates, dict) or not candidates:
        raise TypeError(
            "`candidates` must be a dict from names to models and files. "
            f"Received: candidates={candidates!r}"
        )
    if task not in (None, *answers.TASKS):
        raise ValueError(f"`task` must be one of {answers.TASKS} or None. Received: task={task!r}")
    x, y = samples.labeled(data)
    notes: list[str] = []
    runs = {name: _runs(model, name) for name, model in candidates.items()}
    given = _outputs(runs, x, batch_size)
    first = next(iter(given.values()))[0]
    task = task or answers.task_of(y, first)
    teacher = teacher if teacher in runs else None
    baseline = baseline if baseline in runs else None
    labels = _labels(task, y, first, missing_label)
    score = _scorer(task, labels, first, given, teacher, from_logits, notes, class_names)
    scores = {name: [score(run) for run in outputs] for name, outputs in given.items()}

    rows = []
    for name, candidate in runs.items():
        cost = candidate[0].cost(x)
        if cost.note:
            notes.append(f"{name!r}: {cost.note}")
        row = {"name": name, "runs": len(candidate), **_means(scores[name])}
        row |= {k: v for k, v in dataclasses.asdict(cost).items() if k != "note"}
        rows.append(row)
    draws = _draws(scores, resamples, notes)
    if teacher and baseline:
        _add_gap(rows, draws, MAIN[task], teacher, baseline, notes)
    for row in rows:
        row["intervals"] = _intervals(draws.get(row["name"], {}))
        if row["runs"] > 1:
            row["run_values"] = _run_values(scores[row["name"]])
            row["run_intervals"] = {
                metric: intervals.over_runs(values) for metric, values in row["run_values"].items()
            }
    if latency_runs:
        timed = {row["name"]: runs[row["name"]][0] for row in rows if row["bytes"] is not None}
        _add_latency(rows, timed, x, latency_runs, teacher)
        notes.append(
            "Latency is this host's, one thread, one sample: it ranks candidates, and is not that "
            "of a phone or microcontroller."
        )
    if any(run[0].runtime == "keras" for run in runs.values()):
        notes.append("Bytes of Keras models are those of their weights.")
    if draws:
        notes.append(f"In brackets: 95 % intervals, bootstrap over {len(y):,} test samples.")
    if any(len(run) > 1 for run in runs.values()):
        notes.append(
            "±: half the 95 % interval of the mean over runs (Student's t). What is shown of single"
            " classes and samples is a candidate's first run."
        )
    return Comparison(
        rows=rows,
        notes=notes,
        task=task,
        samples=len(y),
        teacher=teacher,
        class_names=None if class_names is None else list(map(str, class_names)),
        scores={name: run[0] for name, run in scores.items()},
        disagreements=_disagreements(scores, teacher, x, labels),
    )


def _runs(model, name):
    models = model if isinstance(model, (list, tuple)) else [model]
    if not models:
        raise ValueError(f"The candidate {name!r} is an empty list.")
    return [as_candidate(one, name) for one in models]


def _outputs(runs, x, batch_size):
    """The outputs of each candidate's runs, all of the same shape."""
    given, like = {}, None
    for name, candidates in runs.items():
        given[name] = []
        for candidate in candidates:
            result = answers.check(
                candidate.outputs(x, batch_size), samples.count(x), name, like=like
            )
            given[name].append(result)
            like = like or (name, result)
    return given


def _labels(task, y, first, missing_label):
    """The labels as they are compared: values like the outputs, or classes, -1 for missing ones."""
    if task != "regression":
        return answers.class_labels(y, first, missing_label)
    if missing_label is not None:
        raise ValueError("`missing_label` is for classes: leave such samples out of `data`.")
    if y.size != first.size:
        raise ValueError(f"Labels of shape {y.shape} don't fit outputs of {first.shape}.")
    if not np.isfinite(y.astype("float64")).all():
        raise ValueError("The labels hold NaN or infinity: leave such samples out of `data`.")
    return y.reshape(first.shape)


def _scorer(task, labels, first, given, teacher, from_logits, notes, class_names):
    """A function from outputs to `metrics.Scores`."""
    reference = None if teacher is None else given[teacher][0]
    if task == "regression":
        return lambda outputs: metrics.regression(outputs, labels, reference)
    classes = max(2, first.shape[-1])
    if class_names is not None and len(class_names) != classes:
        raise ValueError(
            f"`class_names` must name {classes} classes. Received: {len(class_names)} names"
        )
    absent = sorted(set(range(classes)) - set(np.unique(labels)))
    if absent:
        names = [class_names[c] if class_names else c for c in absent]
        notes.append(
            f"No test sample has the class {', '.join(map(str, names[:10]))}"
            f"{', …' if len(names) > 10 else ''}: means over classes leave it out."
        )

    def log_p(outputs):
        logits = from_logits
        if logits is None:
            logits = not answers.are_probabilities(outputs)
        return answers.log_probabilities(outputs, logits)

    reference = None if reference is None else log_p(reference)
    dense = task == "segmentation"
    return lambda outputs: metrics.classification(log_p(outputs), labels, reference, dense=dense)


def _means(scores):
    return {metric: float(np.mean(values)) for metric, values in _run_values(scores).items()}


def _draws(scores, resamples, notes):
    """Metrics on resampled test sets, means over runs, by candidate; empty if they can't be had."""
    count = next(iter(scores.values()))[0].sums.shape[0]
    if not resamples:
        return {}
    if count < intervals.FEWEST_SAMPLES:
        notes.append(
            f"{count} test samples are too few for intervals ({intervals.FEWEST_SAMPLES} needed)."
        )
        return {}
    draws = {}
    for name, runs in scores.items():
        each = [intervals.bootstrap(s.sums, s.from_sums, resamples) for s in runs]
        draws[name] = {m: np.mean([run[m] for run in each], axis=0) for m in each[0]}
    return draws


def _intervals(draws):
    found = {metric: intervals.percentiles(values) for metric, values in draws.items()}
    return {metric: interval for metric, interval in found.items() if interval}


def _run_values(scores):
    return {m: [s.values[m] for s in scores] for m in scores[0].values}


def _add_gap(rows, draws, metric, teacher, baseline, notes):
    """Adds the share of the gap between baseline and teacher that each candidate recovers."""
    by_name = {row["name"]: row for row in rows}
    low, high = by_name[baseline][metric], by_name[teacher][metric]
    title = tables.title(metric)
    if high <= low:
        notes.append(f"{teacher!r} has no better {title} than {baseline!r}: no gap to recover.")
        return
    uncertain = False
    for name, row in by_name.items():
        if name in (teacher, baseline):
            continue
        row["gap_recovered"] = (row[metric] - low) / (high - low)
        if draws:
            gap = draws[teacher][metric] - draws[baseline][metric]
            # A ratio over a gap that may be 0 has no interval of use.
            uncertain = np.quantile(gap, 0.025) <= 0
            if not uncertain:
                draws[name]["gap_recovered"] = (draws[name][metric] - draws[baseline][metric]) / gap
    if uncertain:
        notes.append(
            f"The gap in {title} between {baseline!r} and {teacher!r} may be 0 on so few "
            "samples: the recovered share has no interval."
        )


def _add_latency(rows, candidates, x, runs, teacher):
    times = timing.latencies(candidates, x, runs)
    reference = times.get(teacher or rows[0]["name"])
    for row in rows:
        own = times.get(row["name"])
        if own is None:
            continue
        row["latency_ms"] = float(np.median(own))
        row["latency_p95_ms"] = float(np.quantile(own, 0.95))
        if reference is not None:
            row["latency_ratio"] = float(np.median(own / reference))


def _disagreements(scores, teacher, x, labels):
    """For each candidate, the samples on which it is farthest from the teacher."""
    if teacher is None:
        return {}
    reference = scores[teacher][0]
    found = {}
    for name, runs in scores.items():
        if name == teacher:
            continue
        own = runs[0]
        worst = np.argsort(-own.disagreement, kind="stable")[:_SHOWN]
        found[name] = [
            {
                "sample": int(i),
                "input": samples.take(x, int(i)),
                "label": labels[i],
                "teacher": _said(reference, i),
                "candidate": _said(own, i),
                "distance": float(own.disagreement[i]),
            }
            for i in worst
            if own.disagreement[i] > 0
        ]
    return found


def _said(scores, i):
    """What a candidate said of sample `i`: class and probability, a map of classes, or values."""
    if scores.confidence is not None and scores.confidence.ndim == 1:
        return int(scores.predicted[i]), float(scores.confidence[i])
    return scores.predicted[i]


def plain(value):
    """`value` with arrays and NumPy's numbers turned into plain types; NaN into `None`."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
