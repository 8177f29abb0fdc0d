"""Models that draw: judges of what they drew, scores, and diffusion in fewer steps."""

from keras_distill.generators.diffusion import ddim_step, noised, sampler, two_steps
from keras_distill.generators.judged import judged
from keras_distill.generators.scores import frechet_distance, precision_recall
from keras_distill.generators.sheet import save_sheet

__all__ = [
    "ddim_step",
    "frechet_distance",
    "judged",
    "noised",
    "precision_recall",
    "sampler",
    "save_sheet",
    "two_steps",
]
