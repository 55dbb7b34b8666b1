"""The map of the course: one name, five places."""

from dataclasses import dataclass
from pathlib import Path

from course_lib.paths import repo_root


@dataclass(frozen=True)
class Chapter:
    """A chapter: its number and name are those of its files, everywhere.

    Attributes:
        number: two digits, such as "07".
        name: of ``course_lib/<name>``, and with the number of the notebooks.
        title: for people.
        builds: what the learner builds, in one sentence.
    """

    number: str
    name: str
    title: str
    builds: str

    @property
    def stem(self) -> str:
        """File name of its notebooks without the ending, such as "07_lpips"."""
        return f"{self.number}_{self.name}"

    @property
    def notebook(self) -> Path:
        """Where its notebook is, or will be."""
        return repo_root() / "notebooks" / f"{self.stem}.ipynb"

    @property
    def exists(self) -> bool:
        """Whether it has been written: whether its notebook is there."""
        return self.notebook.is_file()


CHAPTERS = (
    Chapter("00", "start_here", "Start here", "two images at the same MSE, one clearly worse; the map; the doctor"),
    Chapter("01", "autoencoders", "Autoencoders", "dense and convolutional autoencoders, seven regularisers"),
    Chapter("02", "restoration", "Restoration", "denoising, inpainting, super-resolution and compression"),
    Chapter("03", "variational", "Variational autoencoders", "VAE, beta-VAE, richer priors, two kinds of uncertainty"),
    Chapter("04", "modern_autoencoders", "Modern autoencoders", "VQ-VAE, masked autoencoders, latent diffusion"),
    Chapter("05", "applications", "Applications", "an audio codec, fraud detection, face identification"),
    Chapter("06", "perceptual_losses", "Perceptual losses", "MSE, SSIM and where they fail; feature and style losses"),
    Chapter("07", "lpips", "LPIPS", "LPIPS with five networks, layer by layer, as a Euclidean embedding"),
    Chapter("08", "judgments", "Judgments", "2AFC and JND scores; training LPIPS on judgments"),
    Chapter("09", "attacks", "Attacks", "eight ways to fool a metric, in L2 and L-infinity"),
    Chapter("10", "lipschitz", "1-Lipschitz networks", "layers that cannot move fast, bounds from below and above"),
    Chapter("11", "distillation", "Distillation", "1-Lipschitz students that learn a teacher's embedding"),
    Chapter("12", "certification", "Certification", "decisions that no small perturbation can change, proven"),
    Chapter("13", "retrieval", "Retrieval", "nearest-neighbour search that stays right under attack"),
)
