"""Chapter 01: autoencoders, what keeps them from copying, and how they are trained."""

from course_lib.autoencoders.comparison import Variant, compare, halved, measure, variants
from course_lib.autoencoders.fitting import fit, minibatches
from course_lib.autoencoders.initialisation import INITIALISATIONS, depth_statistics, he, initialise, orthogonal, xavier
from course_lib.autoencoders.linear import PCA, eigengaps, linear_autoencoder, mixing, pca, principal_angles
from course_lib.autoencoders.measures import (
    active_share,
    code_movement,
    copied_noise,
    explained,
    hoyer,
    jacobian_norm,
    knn_accuracy,
    linear_accuracy,
    reconstruction_error,
)
from course_lib.autoencoders.models import (
    ACTIVATIONS,
    Autoencoder,
    Convolutional,
    DeepDense,
    Dense,
    parameter_count,
)
from course_lib.autoencoders.optimisers import (
    SGD,
    Adam,
    AdamW,
    Momentum,
    Plateau,
    RMSprop,
    cosine,
    step_decay,
    warm_up,
)
from course_lib.autoencoders.regularisers import (
    Pass,
    contractive,
    gaussian_noise,
    hutchinson,
    jacobian,
    kl_sparsity,
    l1,
    masking_noise,
    objective,
    rescaled,
    salt_and_pepper,
    squared_error,
    unit_columns_,
    weight_decay,
)

__all__ = [
    "ACTIVATIONS", "INITIALISATIONS", "PCA", "SGD", "Adam", "AdamW", "Autoencoder", "Convolutional", "DeepDense",
    "Dense", "Momentum", "Pass", "Plateau", "RMSprop", "Variant", "active_share", "code_movement", "compare",
    "contractive", "copied_noise", "cosine", "depth_statistics", "eigengaps", "explained", "fit", "gaussian_noise",
    "halved", "he", "hoyer", "hutchinson", "initialise", "jacobian", "jacobian_norm", "kl_sparsity", "knn_accuracy",
    "l1", "linear_accuracy", "linear_autoencoder", "masking_noise", "measure", "minibatches", "mixing", "objective",
    "orthogonal", "parameter_count", "pca", "principal_angles", "reconstruction_error", "rescaled", "salt_and_pepper",
    "squared_error", "step_decay", "unit_columns_", "variants", "warm_up", "weight_decay", "xavier",
]  # fmt: skip
