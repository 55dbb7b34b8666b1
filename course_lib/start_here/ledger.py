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
        "LPIPS Q1, Q3, Q7", "08", "sections 4 and 8",
        "on one set of simulated votes: st-alex 2AFC 0.75, Pearson 0.75, Kendall 0.64; pixel L2 0.65, 0.31, 0.27; "
        "on people's votes (published): 2AFC 0.698 and 0.632, one random person 0.739", "wrong",
    ),
    Claim(
        "LPIPS adds 1.6 M parameters to AlexNet, 1.8 M to VGG-16, 0.3 M to SqueezeNet.",
        "LPIPS Q7", "07", "section 1 and check yourself",
        "1,152, 1,472 and 2,240 weights", "wrong",
    ),
    Claim(
        "Early layers see textures and edges, late layers content.", "LPIPS Q6", "07", "section 2",
        "as far as LPIPS weighs them: a blur is seen mostly in layer 5 (st-alex) or in layer 2 (published AlexNet)",
        "half true",
    ),
    Claim(
        "PSNR, SSIM and L2 are metrics of one kind: pixel-level comparisons.", "LPIPS Q3", "06", "sections 1 and 2",
        "five pictures of one MSE have one PSNR too, while their 1 − SSIM differs by a factor of 13", "half true",
    ),
    Claim(
        "The correlation of LPIPS with human judgment is 2-3 times that of traditional metrics.",
        "LPIPS Q1, Q3, Q11", "06", "check yourself",
        "its source contradicts itself: 0.75-0.85 by 0.25-0.35 (Q1) or by 0.15-0.55 (Q3) is 2.1-3.4 or 1.4-5.7 times",
        "wrong",
    ),
    Claim(
        "Colour is seen by the first layers (conv1-conv2), content by the deeper ones.", "LPIPS Q6", "06", "section 4",
        "a colour cast moves st-alex's first layer by 4.5 % of the way to another crop, its last by 4.1 %, and layer 4 "
        "of st-vgg most; a cut-up crop moves the first layers by 1 and 1 %, the last by 29 and 34 %", "half true",
    ),
    Claim(
        "LPIPS handles geometric transformations better.", "LPIPS Q11", "06", "section 3",
        "small ones: MSE, SSIM and MS-SSIM call a blurred crop closer than one moved by two pixels 12 of 12 times, "
        "features of the shift-tolerant nets 0 of 12 times", "half true",
    ),
    Claim(
        "LPIPS is trained on JND data.", "LPIPS Q8", "08", "section 7",
        "BAPPS has 151,400 2AFC triplets for training; its 9,600 JND pairs only evaluate (published)", "wrong",
    ),
    Claim(
        "LPIPS typically needs 10k-100k triplets for good performance.", "LPIPS Q8", "08", "section 6",
        "2AFC on simulated votes, AlexNet: heads alone 0.746 with 50 triplets, 0.768 with 1,000 and 0.767 with 8,000; "
        "everything from scratch 0.776 with 1,000 and 0.787 with 8,000", "half true",
    ),
    Claim(
        "Linear training performs as well as or better than training from scratch, at far less cost.",
        "LPIPS Q9", "08", "sections 6 and 8",
        "with 8,000 triplets linear 0.767, scratch 0.787 (simulated votes, AlexNet); published 0.787 and 0.802 on "
        "distortions, 0.653 and 0.652 on real algorithms; the cost is far less", "half true",
    ),
    Claim(
        "1 - LPIPS is a quality score.", "LPIPS Q10", "07", "section 6",
        "gradient ascent finds pairs with LPIPS above 1, so the score is negative", "wrong",
    ),
    Claim(
        "LPIPS values have fixed ranges: below 0.1 barely noticeable, above 0.6 very different.",
        "LPIPS Q10", "07", "section 6",
        "one pair of pictures reads 0.78 at 64 x 64 and 0.54 at 256 x 256", "wrong",
    ),
    Claim(
        "LPIPS requires a GPU for practical use.", "LPIPS Q12", "07", "section 7, make bench",
        "milliseconds per pair of 64 x 64 patches on two CPU cores", "wrong",
    ),
    Claim(
        "LPIPS is less sensitive to imperceptible pixel shifts.", "LPIPS Q11", "07", "section 4",
        "one pixel costs 0.005 and noise of no more MSE 0.20 (st-alex), 0.018 and 0.13 (published AlexNet)",
        "true",
    ),
    Claim(
        "LPIPS computes an L2 distance.", "LPIPS Q5", "07", "section 5",
        "its square: the triangle inequality fails for 15 of 16 crops, and holds for the root", "half true",
    ),
    Claim(
        "State-of-the-art perceptual metrics are vulnerable to adversarial attacks.",
        "LipSim README", "09", "sections 1 and 7, make bench-attacks",
        "LPIPS (st-alex, 64 x 64): of 64 decisions that agree with the simulated majority at most 38, 19 and 4 stand "
        "at L2 0.5, 1 and 2; ensembles of ViTs were not attacked here", "true",
    ),
    Claim(
        "Perceptual metrics are evaluated with AutoAttack.",
        "LipSim README", "09", "section 4, tests/test_attacks_traps.py",
        "its standard version stops with an IndexError: its targeted DLR needs four classes (plain DLR three), a "
        "choice of two images has two; what can run is APGD with cross-entropy, untargeted FAB and Square", "half true",
    ),
    Claim(
        "LipSim's backbone is a 1-Lipschitz network.", "LipSim README", "10", "section 8",
        "for any weights: with random ones, tiny is bounded from above by 1.00000, in float64",
        "true",
    ),
    Claim(
        "LipSim fine-tunes the 1-Lipschitz neural network with projection on the unit ball.",
        "LipSim README", "10", "section 8",
        "divided by its length, the embedding of a dark picture moves 2.8 times as fast as the picture; projected onto "
        "the ball, which leaves short ones alone, 0.8 times", "half true",
    ),
    Claim(
        "To avoid self-supervised schemes for training the feature extractor, LipSim leverages distillation.",
        "LipSim README", "11", "section 4",
        "rank correlation with the teacher (st-alex) over distances to distortions: pixels 0.49, untrained "
        "0.43, 32 steps of distillation 0.52 (96: 0.57), 32 steps of SimCLR 0.34; six photographs",
        "true",
    ),
    Claim(
        "LipSim's first stage trains a 1-Lipschitz classifier.", "LipSim README", "11", "sections 3 and 4",
        "it trains an embedding: its loss takes no label, and 96 steps without labels bring the decisions that are the "
        "teacher's from 0.66 to 0.73 of 200", "wrong",
    ),
    Claim(
        "LipSim provides certificates for all perturbations within an l2 ball.", "LipSim README", "12", "section 2",
        "the published formula divides by the length of the embedding: where that is 0.5 it claims 0.56, and the "
        "decision flips at 0.28; without that division the certificate holds", "half true",
    ),
    Claim(
        "A higher margin leads to a higher certified score and a lower natural score.",
        "LipSim README", "12", "section 4, make bench-certification",
        "margin 0.5 against 8, our hinge on the radius: natural 87 against 80 %, certified at 36/255 "
        "83 against 79 %, at 2 21 against 53 %: higher at large radii only", "half true",
    ),
    Claim(
        "Without regularisation an overcomplete autoencoder learns the trivial identity.",
        "Autoencoder Q1", "01", "section 3",
        "after 30 epochs 256 units copy 0.89 of a small noise on the pixels that digits use, 0.19 on the others",
        "half true",
    ),
    Claim(
        "Deep autoencoders need dropout between layers.", "Autoencoder Q1", "01", "section 6",
        "10 % lower the explained variance from 0.54 to 0.4, and there was no overfitting to cure (0.55 of training, "
        "0.54 of test digits without)", "wrong",
    ),
    Claim(
        "Batch normalisation makes the training of deep autoencoders stable.", "Autoencoder Q1", "01", "section 6",
        "from He's start the explained variance goes from 0.14 to 0.56 at a rate of 0.01, and from 0.15 to 0.07 at "
        "0.001", "half true",
    ),
    Claim(
        "Denoising learns robust features.", "Autoencoder Q1", "01", "section 4",
        "against the noise it was trained on: the error of erased digits falls from 0.028 to 0.017 (plain: 0.023); a "
        "classifier names 0.328 of noisy digits by their codes, 0.350 by plain codes", "half true",
    ),
    Claim(
        "Xavier is for sigmoid and tanh.", "Autoencoder Q2", "01", "section 6",
        "sixteen layers of tanh leave 0.3 of the signal, sixteen of sigmoids 3e-7", "half true",
    ),
    Claim(
        "Autoencoders are best trained with Adam at lr = 1e-3 to 1e-4.", "Autoencoder Q2", "01", "section 7",
        "explained variance after 200 steps is best at 0.01 (0.69; at 0.001 0.52)", "wrong",
    ),
    Claim(
        "Use skip connections for preserving details.", "Autoencoder Q3", "02", "sections 2 and 5",
        "denoising, 3,000 steps: PSNR 29.4 with skips and residual, 27.6 with neither; around a code: what goes there "
        "would have to be in the file", "half true",
    ),
    Claim(
        "L1 is less blurry than L2.", "Autoencoder Q3", "02", "section 3, make bench-restoration",
        "not seen: 4 x super-resolution, equal budget, five networks from one start: LPIPS (st-alex) 0.236 with L1, "
        "0.233 with L2; small ones from nothing: L1 is not the rougher", "wrong",
    ),
    Claim(
        "A perceptual loss preserves texture.", "Autoencoder Q3", "02", "section 3, make bench-restoration",
        "it makes texture: LPIPS falls from 0.236 to 0.103 (st-vgg, not trained on: 0.333 to 0.247), and so does PSNR, "
        "from 26.0 to 25.3", "half true",
    ),
    Claim(
        "Best results: a weighted sum of pixel, perceptual and adversarial loss.",
        "Autoencoder Q3", "02", "section 3, make bench-restoration",
        "best by LPIPS (0.100 of five losses), worst by PSNR (25.0): the weights choose a place, no place is the best",
        "half true",
    ),
    Claim(
        "The variance of q(z|x) is the aleatoric uncertainty.",
        "Autoencoder, uncertainty", "03", "Two kinds of uncertainty",
    ),
    Claim(
        "1:N identification takes the argmax over the database.",
        "Autoencoder, faces", "05", "Identification with rejection",
    ),
)  # fmt: skip
