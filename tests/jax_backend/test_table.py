"""The table of `docs/backends.md` says what the tests show."""

import importlib.util
import pathlib

import backend_cases
import pytest
import test_command_line
import test_conversion
import test_killed_runs
import test_training_on_jax
import test_what_is_refused
from loss_cases import CASES as LOSSES

#: Keras has it for JAX alone.
DEVICES = "Several devices: `keras.distribution.DataParallel`"
#: What shows each row that works on JAX, and on PyTorch but for `DEVICES`: cases that give the
#: same on both backends, or tests.
SHOWN = {
    "`Distiller`: labels, weights, missing labels, validation with the teacher": (
        *("soft_targets", "ends_in_softmax", "ends_in_sigmoid", "missing_labels"),
        "validated_with_the_teacher",
    ),
    "Matches, adapters, masks, all losses": (
        *("matches", "masked_steps"),
        *(f"loss {case.name}" for case in LOSSES),
    ),
    "Ensembles, also with learned weights; schedules": (
        *("ensemble", "learned_ensemble", "schedules"),
    ),
    "`MutualDistiller`": ("mutual",),
    "Functions, SavedModels and `.tflite` files as teachers": (
        *("of_arrays", "of_tensors", "saved_model", "tflite_file"),
    ),
    "Answers in memory and stored ones; `tf.data`, `PyDataset` and Grain": (
        *("answers_in_memory", "stored_answers"),
        *("stored_answers_of_pydataset", "stored_answers_of_grain"),
    ),
    "`language.generate`, `language.write_targets`": ("generated", "written_targets"),
    "`quantize_aware`": (
        "rounding",
        "quantize_aware",
        "trained_quantize_aware",
        "trained_quantize_aware_sigmoid",
    ),
    "`pruning.prune`": ("pruned",),
    "`tflite.convert`": (
        test_conversion.test_quantize_aware_student,
        test_conversion.test_int8_file,
    ),
    DEVICES: (test_training_on_jax.test_several_devices_make_the_same_update,),
    "Checkpoints; resuming by `BackupAndRestore`, `OrbaxCheckpoint`": (
        test_killed_runs.test_checkpoints_load,
        test_killed_runs.test_backup_and_restore,
        test_killed_runs.test_orbax,
    ),
    "The command line": (test_command_line.test_train_and_evaluate, test_command_line.test_export),
    "`evaluation.compare`, `tuning`": ("compared", "tuned", "multiply_accumulates"),
}
#: What shows that each other row is refused on both.
REFUSED = {
    "`language.OnPolicyDistiller`": test_what_is_refused.test_training_on_policy,
    "`tflite.convert(stream=...)`": test_conversion.test_what_cannot_be_handed_over_is_refused,
    "`compare(latency_runs=...)`": test_what_is_refused.test_latency,
    "`pruning.Sparsity`, `WeightClustering`, `GradualPruning`": test_what_is_refused.test_sparsity,
    "`check_numerics=True`": test_what_is_refused.test_check_numerics,
    "`keras_distill.legacy`": test_what_is_refused.test_keras_2,
}


def rows():
    page = pathlib.Path(__file__).parents[2] / "docs" / "backends.md"
    for line in page.read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| What"):
            what, _, on_jax, on_torch = (cell.strip() for cell in line.strip("|").split("|"))
            yield what, on_jax, on_torch


def test_each_row_is_shown():
    assert {what for what, on_jax, _ in rows() if on_jax == "yes"} == set(SHOWN)
    assert {what for what, on_jax, _ in rows() if on_jax == "no"} == set(REFUSED)
    assert {what for what, _, on_torch in rows() if on_torch == "yes"} == set(SHOWN) - {DEVICES}


@pytest.mark.parametrize("what", SHOWN)
def test_cases_are_there(what):
    for shown in SHOWN[what]:
        has_grain = importlib.util.find_spec("grain") is not None
        is_left_out = shown == "stored_answers_of_grain" and not has_grain
        assert callable(shown) or shown in backend_cases.CASES or is_left_out
