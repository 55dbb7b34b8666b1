"""From autoencoders to certified perceptual metrics: the library behind the course's notebooks."""

__version__ = "0.1.0"
