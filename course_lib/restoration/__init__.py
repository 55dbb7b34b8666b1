"""Chapter 02: restoring pictures (noise, holes, too few pixels) and compressing them, with autoencoders and U-Nets."""

from course_lib.restoration import range_coder
from course_lib.restoration.baselines import (
    BASELINES,
    Restore,
    anscombe_non_local_means,
    biharmonic,
    non_local_means,
    total_variation,
)
from course_lib.restoration.checkpoints import load_network, save_network
from course_lib.restoration.compression import (
    LAMBDAS,
    Codec,
    FactorizedPrior,
    bits_per_pixel,
    compress,
    decompress,
    fit_codec,
    rate_distortion,
)
from course_lib.restoration.degradations import (
    MASKS,
    TASKS,
    Degrade,
    Degraded,
    bicubic,
    block_mask,
    downsample,
    gaussian_noise,
    hide,
    inpainting,
    poisson_noise,
    psnr,
    psnr_by_mask,
    push_pull,
    random_mask,
    smooth_fill,
    text_mask,
)
from course_lib.restoration.fit import cosine, fit, turned
from course_lib.restoration.jpeg import decode_jpeg, encode_jpeg, jpeg_header_size
from course_lib.restoration.losses import (
    Loss,
    PatchDiscriminator,
    charbonnier,
    clamped,
    fooling_loss,
    hinge_loss,
    l1,
    l2,
    weighted_sum,
)
from course_lib.restoration.networks import Block, UNet, pad_to_multiple, restore, without_latent
from course_lib.restoration.tiling import tiled

__all__ = [
    "BASELINES", "LAMBDAS", "MASKS", "TASKS", "Block", "Codec", "Degrade", "Degraded", "FactorizedPrior", "Loss",
    "PatchDiscriminator", "Restore", "UNet", "anscombe_non_local_means", "bicubic", "biharmonic", "bits_per_pixel",
    "block_mask", "charbonnier", "clamped", "compress", "cosine", "decode_jpeg", "decompress", "downsample",
    "encode_jpeg", "fit", "fit_codec", "fooling_loss", "gaussian_noise", "hide", "hinge_loss", "inpainting",
    "jpeg_header_size", "l1", "l2", "load_network", "non_local_means", "pad_to_multiple", "poisson_noise", "psnr",
    "psnr_by_mask", "push_pull", "random_mask", "range_coder", "rate_distortion", "restore", "save_network",
    "smooth_fill", "text_mask", "tiled", "total_variation", "turned", "weighted_sum", "without_latent",
]  # fmt: skip
