"""Checks of chapter 01's exercises: tied weights, penalties, noise, an optimiser, a start, PCA and a robust code."""

from course_lib.checks.autoencoders.denoising import denoising_loss
from course_lib.checks.autoencoders.layers import he_uniform, tied
from course_lib.checks.autoencoders.linear import angles_to_pca
from course_lib.checks.autoencoders.optimising import adamw_step
from course_lib.checks.autoencoders.penalties import contractive, kl_sparsity
from course_lib.checks.autoencoders.robust import probe, robust_code, train

__all__ = [
    "adamw_step",
    "angles_to_pca",
    "contractive",
    "denoising_loss",
    "he_uniform",
    "kl_sparsity",
    "probe",
    "robust_code",
    "tied",
    "train",
]
