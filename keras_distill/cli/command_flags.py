"""The flags of each command. Nothing here imports TensorFlow: help and wrong flags don't wait."""

from absl import flags as absl_flags

AUGMENTATIONS = ("crop", "flip", "randaugment")
#: What `tune` can search: bounds, and "log" where the logarithm is what is drawn.
SEARCH_SPACE: dict[str, tuple] = {
    "temperature": (1.0, 16.0, "log"),
    "alpha": (0.0, 1.0),
    "learning_rate": (1e-4, 3e-2, "log"),
}


def of(command: str) -> absl_flags.FlagValues:
    """The flags of a command, and those that all commands have.

    Args:
        command: Name of the command.
    """
    flags = settings(command)
    common = {"flag_values": flags, "module_name": "all commands"}
    absl_flags.DEFINE_bool("help", False, "Show this help.", short_name="h", **common)
    absl_flags.DEFINE_bool("json", False, "Print the result as JSON, all else to stderr.", **common)
    absl_flags.DEFINE_integer(
        "verbosity",
        0,
        "-1: warnings, 0: information, 1: also tracebacks, and what TensorFlow says.",
        **common,
    )
    absl_flags.DEFINE_string("flagfile", None, "File with flags, one on each line.", **common)
    return flags


def settings(command: str) -> absl_flags.FlagValues:
    """The flags of a command without those that all commands have.

    Args:
        command: Name of the command.
    """
    flags = absl_flags.FlagValues()
    flags.set_gnu_getopt()
    for declare in _DECLARED[command]:
        declare(flags)
    return flags


def _data(flags: absl_flags.FlagValues) -> None:
    to = {"flag_values": flags}
    absl_flags.DEFINE_string(
        "data",
        None,
        "Labeled examples: a folder with one folder of images per class, an .npz file with arrays "
        "x and y (or x_train, y_train, x_test, ...), a .csv or .tsv file, which may be compressed "
        "(.gz), or the name of a dataset of TensorFlow Datasets.",
        **to,
    )
    absl_flags.DEFINE_string(
        "validation_data", None, "For a table: the file to validate on. Default: a share.", **to
    )
    absl_flags.DEFINE_string(
        "test_data", None, "For a table: the file to test on. Default: a share.", **to
    )
    absl_flags.DEFINE_string("data_dir", None, "Where TensorFlow Datasets keeps its data.", **to)
    absl_flags.DEFINE_bool("download", True, "Whether it may download what isn't there.", **to)
    absl_flags.DEFINE_float(
        "holdout", 0.1, "Share held out for validation, and for test, where there is none.", **to
    )
    absl_flags.DEFINE_integer("seed", 0, "Seed of splits, order, views and weights.", **to)


_TASKS = ("classification", "multilabel", "regression")
_ABOUT_TASKS = (
    "Whether the labels of a table or an .npz file are classes, several at once (rows of 0 and 1), "
    "or values. Default: texts, and the integers of an .npz file, are classes; rows of 0 and 1 are "
    "several classes at once unless each has a single 1; other numbers are values."
)


def _task(flags: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_enum("task", None, _TASKS, _ABOUT_TASKS, flag_values=flags)


def _examples(flags: absl_flags.FlagValues) -> None:
    """What an example is."""
    to = {"flag_values": flags}
    absl_flags.DEFINE_list(
        "image_size",
        None,
        "HEIGHT,WIDTH to which images are resized. Needed if they differ in size.",
        **to,
    )
    absl_flags.DEFINE_string("label_column", None, "Column of a table to predict.", **to)
    absl_flags.DEFINE_string(
        "text_column",
        None,
        "Column of a table that is the input, a text. Default: all columns are inputs.",
        **to,
    )
    absl_flags.DEFINE_string(
        "prepare",
        None,
        "MODULE:FUNCTION applied to each example, (x, y) -> (x, y), in the data pipeline.",
        **to,
    )


def _run(flags: absl_flags.FlagValues) -> None:
    to = {"flag_values": flags}
    absl_flags.DEFINE_string("output", None, "New folder of the run. Default: in runs/.", **to)
    absl_flags.DEFINE_string("resume", None, "Folder of a run to resume.", **to)


def _models(flags: absl_flags.FlagValues) -> None:
    to = {"flag_values": flags}
    absl_flags.DEFINE_string("teacher", None, "The teacher, see above.", **to)
    absl_flags.DEFINE_string("student", None, "The student, see above.", **to)
    absl_flags.DEFINE_string(
        "weights",
        None,
        "Weights of a teacher of keras.applications: imagenet, or a file. Default: random.",
        **to,
    )


def _losses(flags: absl_flags.FlagValues) -> None:
    to = {"flag_values": flags}
    absl_flags.DEFINE_string(
        "loss",
        None,
        "A loss of keras_distill.losses between the outputs. Default: SoftTargets for classes, "
        "the mean squared error for values.",
        **to,
    )
    absl_flags.DEFINE_float("temperature", None, "Temperature of the loss, if it has one.", **to)
    absl_flags.DEFINE_multi_string(
        "match",
        [],
        "LOSS,STUDENT_LAYER,TEACHER_LAYER[,WEIGHT]: a loss between two layers, with an adapter "
        "where their shapes differ. May be repeated.",
        **to,
    )
    absl_flags.DEFINE_float("alpha", 0.1, "Weight of the labels, from 0 to 1.", **to)


def _training(flags: absl_flags.FlagValues) -> None:
    to = {"flag_values": flags}
    absl_flags.DEFINE_integer("epochs", 20, "Epochs of the student.", lower_bound=1, **to)
    absl_flags.DEFINE_integer(
        "teacher_epochs", None, "Epochs of a teacher to be trained. Default: --epochs.", **to
    )
    absl_flags.DEFINE_integer("batch_size", 128, "Examples in a batch.", lower_bound=1, **to)
    absl_flags.DEFINE_float("learning_rate", 1e-3, "Highest learning rate of Adam.", **to)
    absl_flags.DEFINE_list(
        "augment", [], f"Random changes of images, of {', '.join(AUGMENTATIONS)}.", **to
    )
    absl_flags.DEFINE_enum("mix", None, ["mixup", "cutmix"], "Mix images of a batch.", **to)
    absl_flags.DEFINE_bool("cache", False, "Keep the examples in memory.", **to)
    absl_flags.DEFINE_bool(
        "baseline", False, "Also train the student on labels alone, to compare with.", **to
    )


def _answers(flags: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string(
        "answers",
        None,
        "Folder of the teacher's stored outputs; written where it is missing. Training then costs "
        "what the student alone costs.",
        flag_values=flags,
    )


def _stored(flags: absl_flags.FlagValues) -> None:
    """How a teacher's outputs are stored."""
    to = {"flag_values": flags}
    absl_flags.DEFINE_integer("views", 1, "Augmented views stored of each example.", **to)
    absl_flags.DEFINE_integer("top_k", None, "How many logits to store. Default: all.", **to)


def _store(flags: absl_flags.FlagValues) -> None:
    to = {"flag_values": flags}
    absl_flags.DEFINE_string(
        "teacher",
        None,
        "The teacher: a .keras, .h5 or .tflite file, or a SavedModel's folder.",
        **to,
    )
    absl_flags.DEFINE_string("output", None, "Folder for the outputs.", **to)
    absl_flags.DEFINE_list("augment", [], "As for `train`.", **to)
    absl_flags.DEFINE_float("temperature", None, "Of the loss that will read them.", **to)
    absl_flags.DEFINE_integer("batch_size", 128, "Views answered at once.", lower_bound=1, **to)


def _tune(flags: absl_flags.FlagValues) -> None:
    to = {"flag_values": flags}
    absl_flags.DEFINE_integer("trials", 20, "Trials in all.", lower_bound=1, **to)
    absl_flags.DEFINE_list(
        "search", list(SEARCH_SPACE), f"What to search, of {', '.join(SEARCH_SPACE)}.", **to
    )


def _demo(flags: absl_flags.FlagValues) -> None:
    to = {"flag_values": flags}
    absl_flags.DEFINE_string("output", "runs/demo", "Folder for models and files.", **to)
    absl_flags.DEFINE_integer("seed", 0, "Seed of split, weights and order.", **to)


def _export(flags: absl_flags.FlagValues) -> None:
    to = {"flag_values": flags}
    absl_flags.DEFINE_string("output", None, "New folder for the file and its kit.", **to)
    absl_flags.DEFINE_string("target", "android", "android, micro, ethos-u55-128, ...", **to)
    absl_flags.DEFINE_string(
        "quantization",
        None,
        "float32, float16, dynamic, int8, int16x8 or int4. Default: int8, and for a quantize-aware "
        "student what it was trained for.",
        **to,
    )
    absl_flags.DEFINE_string(
        "io", None, "Type of inputs and outputs: float32, int8, uint8 or int16.", **to
    )
    absl_flags.DEFINE_enum(
        "recurrent",
        None,
        ["unroll", "step"],
        "What becomes of recurrent layers without an operator of their own: copies of the "
        "operators for each time step, or a file that computes one step. Default: loops, which "
        "only float files can hold.",
        **to,
    )
    absl_flags.DEFINE_enum(
        "postprocessing",
        None,
        ["softmax", "sigmoid", "argmax"],
        "What to do with the outputs.",
        **to,
    )
    absl_flags.DEFINE_integer("samples", 500, "Examples to calibrate on and to verify on.", **to)


def _kit(flags: absl_flags.FlagValues) -> None:
    """Limits of an exported file, and what the files beside it are called."""
    to = {"flag_values": flags}
    absl_flags.DEFINE_string(
        "max_flash",
        None,
        "Bytes that the file, or with --firmware the whole, may have, such as 65536 or 64KB.",
        **to,
    )
    absl_flags.DEFINE_enum(
        "firmware",
        None,
        ["reference", "cmsis_nn"],
        "Kernels of TFLite Micro (its source tree in TFLITE_MICRO_ROOT) with which the file is "
        "linked for a Cortex-M4 and run in QEMU, for what it takes as a whole.",
        **to,
    )
    absl_flags.DEFINE_string(
        "max_arena", None, "Bytes of tensor arena that it may need on a microcontroller.", **to
    )
    absl_flags.DEFINE_string(
        "labels",
        None,
        "Names of the classes: A,B,C, or a file with one on each line. Default: those of the data.",
        **to,
    )
    absl_flags.DEFINE_string(
        "name", "student", "What files, C++ namespace and Kotlin class are named after.", **to
    )
    absl_flags.DEFINE_string("package", None, "Kotlin package. Default: com.example.student.", **to)


def _evaluate(flags: absl_flags.FlagValues) -> None:
    to = {"flag_values": flags}
    absl_flags.DEFINE_enum("split", "test", ["test", "validation"], "Part of the data.", **to)
    absl_flags.DEFINE_enum(
        "task",
        None,
        [*_TASKS, "detection", "segmentation"],
        f"{_ABOUT_TASKS} For detection, --data is a folder in the layout of Pascal VOC, or a .json "
        "file of COCO. For segmentation, it is a folder with images in test and, of the same "
        "names, PNG files of the class of each pixel in testannot; likewise val and valannot.",
        **to,
    )


def _dense(flags: absl_flags.FlagValues) -> None:
    """What is asked of detectors and segmenters."""
    to = {"flag_values": flags}
    absl_flags.DEFINE_string("images", None, "For a file of COCO: the folder of the images.", **to)
    absl_flags.DEFINE_list(
        "class_names",
        None,
        "For detection and segmentation: A,B,C, in the order of the outputs. Default: those of the "
        "annotations, in the order of the alphabet (Pascal VOC) or of their ids (COCO).",
        **to,
    )
    absl_flags.DEFINE_string(
        "decode",
        None,
        "For detection: MODULE:FUNCTION from a candidate's outputs to Detections, such as the "
        "`detections` of a keras_distill.detection.Head. Default: candidates give boxes, scores "
        "and labels themselves.",
        **to,
    )
    absl_flags.DEFINE_integer(
        "missing_label", None, "For segmentation: the class of pixels that don't count.", **to
    )


def _timing(flags: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_integer(
        "latency_runs", 0, "How often each candidate is timed on this host.", flag_values=flags
    )


def _report(flags: absl_flags.FlagValues) -> None:
    to = {"flag_values": flags}
    absl_flags.DEFINE_string("output", None, "Folder for the report. Default: in the run's.", **to)
    absl_flags.DEFINE_string("title", None, "Title. Default: the run's folder.", **to)


def _inspect(flags: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string(
        "target", None, "Target that must take the file: android, micro, ...", flag_values=flags
    )


def _prove(flags: absl_flags.FlagValues) -> None:
    to = {"flag_values": flags}
    absl_flags.DEFINE_string("serial", None, "The board's port, such as /dev/ttyUSB0.", **to)
    absl_flags.DEFINE_integer("baud", 115200, "Baud rate of the port.", **to)
    absl_flags.DEFINE_float("timeout", 10.0, "Seconds to wait for each answer.", **to)


def _profile(flags: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string(
        "file", None, "The .tflite file that ran, whose layers are shown.", flag_values=flags
    )


_OF_DATA = (_data, _examples, _task)
_OF_TRAIN = (*_OF_DATA, _run, _models, _losses, _training, _answers, _stored)
_DECLARED = {
    "demo": (_demo,),
    "train": _OF_TRAIN,
    "store": (*_OF_DATA, _stored, _store),
    "export": (*_OF_DATA, _export, _kit),
    "evaluate": (_data, _examples, _evaluate, _dense, _timing),
    "report": (_report, _timing),
    "tune": (*_OF_TRAIN, _tune),
    "inspect": (_inspect,),
    "prove": (_prove,),
    "profile": (_profile,),
}
