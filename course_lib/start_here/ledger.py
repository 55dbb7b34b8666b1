"""The ledger of claims: what people say about these methods, where the course measures it, and what came out."""

from dataclasses import dataclass
from typing import Literal

from course_lib.start_here.chapters import CHAPTERS

Verdict = Literal["true", "half true", "wrong", "not yet measured"]


@dataclass(frozen=True)
class Claim:
    """A claim that circulates, and what measuring it gave.

    Attributes:
        claim: as people state it.
        seed: the question that it answers, for example "LPIPS Q7".
        chapter: number of the chapter that measures it.
        where: the notebook's section, or the command, that measures it.
        measured: what came out; empty as long as the verdict is "not yet measured".
        verdict: true, half true, wrong, or not yet measured.
    """

    claim: str
    seed: str
    chapter: str
    where: str
    measured: str = ""
    verdict: Verdict = "not yet measured"

    def __post_init__(self) -> None:
        if self.chapter not in {chapter.number for chapter in CHAPTERS}:
            raise ValueError(f"there is no chapter {self.chapter!r}; use the number of one in CHAPTERS")
        if bool(self.measured) == (self.verdict == "not yet measured"):
            raise ValueError("a verdict needs a measurement, and a measurement a verdict; give both or neither")


LEDGER = (
    Claim(
        "LPIPS has a 0.75-0.85 correlation with human judgment, traditional metrics 0.25-0.35.",
        "LPIPS Q1, Q3, Q7", "08", "The 2AFC score and the human ceiling",
    ),
    Claim("LPIPS adds 1.6 million parameters to AlexNet, 1.8 million to VGG-16.", "LPIPS Q7", "07", "The heads"),
    Claim("LPIPS is trained on JND data.", "LPIPS Q8", "08", "What the training data is"),
    Claim("1 - LPIPS is a quality score.", "LPIPS Q10", "07", "LPIPS as a score"),
    Claim("LPIPS requires a GPU for practical use.", "LPIPS Q12", "07", "Precision and speed"),
    Claim("LPIPS is robust to small shifts.", "LPIPS Q11", "07", "Shift tolerance"),
    Claim(
        "The variance of q(z|x) is the aleatoric uncertainty.",
        "Autoencoder, uncertainty", "03", "Two kinds of uncertainty",
    ),
    Claim(
        "1:N identification takes the argmax over the database.",
        "Autoencoder, faces", "05", "Identification with rejection",
    ),
)  # fmt: skip
