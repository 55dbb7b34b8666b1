"""The course's data, available without a network, and readers for judgments that you download.

- :mod:`~course_lib.data.photos`: real colour photographs, and crops of them, split by photograph
- :mod:`~course_lib.data.digits`: real handwritten digits
- :mod:`~course_lib.data.distortions`: twenty ways to damage an image, from barely to badly
- :mod:`~course_lib.data.triplets`: which of two distorted patches is closer to a reference? *Simulated* judgments
- :mod:`~course_lib.data.pairs`: can these two patches be told apart? *Simulated* judgments
- :mod:`~course_lib.data.bapps`, :mod:`~course_lib.data.nights`, :mod:`~course_lib.data.materials`: what people said
- :mod:`~course_lib.data.folders`: your own judgments
- :mod:`~course_lib.data.sources`: all of these judgments by name
"""

SPLITS = ("train", "val", "test")
LUMA = (0.299, 0.587, 0.114)  # brightness of red, green and blue, as JPEG and television weigh them (Rec. 601)


def check_split(split: str, choices: tuple[str, ...] = SPLITS) -> None:
    """Raise unless `split` is one of `choices`.

    Raises:
        ValueError: otherwise, naming the choices.
    """
    if split not in choices:
        raise ValueError(f"unknown split {split!r}; use one of {', '.join(map(repr, choices))}")
