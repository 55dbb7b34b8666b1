"""Let the simulated observers judge the triplets; writes the votes that course_lib.data.triplets ships.

    python tools/simulate_judgments.py

Makes the images of every split, measures them with shift-tolerant LPIPS-VGG, sets tau on the training split so that
two observers agree as often as people do on BAPPS traditional, samples the votes, and writes
course_lib/data/simulated_votes.npz with simulated_votes.json, which says how it was made. Takes about fifteen minutes.
"""

import datetime
import io
import json
import platform
import sys
from typing import Any

import numpy as np
import PIL
import torch
from torch import Tensor
from tqdm import tqdm

from course_lib import weights
from course_lib.data import SPLITS, photos
from course_lib.data import triplets as t
from course_lib.lpips import LPIPS
from course_lib.paths import write_atomically

NET = "st-vgg"
AGREEMENT = 0.81  # mean p^2 + (1 - p)^2 on BAPPS traditional, of 5 human votes per triplet


def agreement(votes: Tensor) -> float:
    """Mean of p^2 + (1 - p)^2 over the triplets, p = fraction of the sampled votes for p1."""
    p = votes.double() / t.OBSERVERS
    return (p.square() + (1 - p).square()).mean().item()


def find_tau(d0: Tensor, d1: Tensor, split: str) -> float:
    """Bisect, on a logarithmic scale, for the tau at which the sampled votes agree as wanted."""
    low, high = 1e-4, 10.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        votes = t.simulate_votes(d0, d1, middle, t.vote_generator(split))
        low, high = (middle, high) if agreement(votes) > AGREEMENT else (low, middle)
    return float(f"{middle:.6g}")


@torch.no_grad()
def measure(split: str, metric: LPIPS) -> tuple[Tensor, Tensor, list[list[float]]]:
    """Distances d0 and d1 of all triplets of a split, and the fingerprints of its parts."""
    distances, fingerprints = [], []
    for number in tqdm(range(t.SIZES[split] // t.PART), desc=split):
        part = t.make_part(split, number)
        fingerprints.append(t.fingerprint(part))
        for chosen in torch.arange(t.PART).split(50):
            ref, p0, p1 = (images[chosen].float() / 255 for images in part[:3])
            distances.append(torch.stack(metric.triplet_distances(ref, p0, p1)))
    d0, d1 = torch.cat(distances, 1)
    return d0, d1, fingerprints


def main() -> None:
    """Measure, calibrate, vote, write."""
    metric = LPIPS(NET)
    measured = {split: measure(split, metric) for split in SPLITS}
    tau = find_tau(*measured["train"][:2], "train")
    arrays: dict[str, Any] = {}
    agreements = {}
    for split, (d0, d1, _) in measured.items():
        votes = t.simulate_votes(d0, d1, tau, t.vote_generator(split))
        arrays |= {f"{split}_votes": votes.numpy(), f"{split}_d0": d0.numpy(), f"{split}_d1": d1.numpy()}
        agreements[split] = round(agreement(votes), 4)
    record = {
        "what": "simulated votes: no person ever saw these triplets",
        "scheme": f"{t.OBSERVERS} observers, each choosing p1 with probability sigmoid((d0 - d1) / tau)",
        "distance": f"LPIPS({NET!r}) of the uint8 images",
        "weights_sha256": weights.FILES[NET].sha256,
        "tau": tau,
        "tau_set_on": f"train, to a mean p^2 + (1-p)^2 of {AGREEMENT} over the sampled {t.OBSERVERS}-vote fractions",
        "mean_agreement": agreements,
        "triplets": t.SIZES,
        "photographs": {split: photos.names(split) for split in SPLITS},
        "seeds": "triplets._seed(split, part): crops; + 1: distortions; triplets.vote_generator(split): votes",
        "fingerprints": {split: prints for split, (_, _, prints) in measured.items()},
        "command": "python tools/simulate_judgments.py",
        "date": datetime.date.today().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pillow": PIL.__version__,
            "numpy": np.__version__,
        },
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_atomically(t.VOTES, content.getvalue())
    write_atomically(t.PROVENANCE, (json.dumps(record, indent=1) + "\n").encode())
    print(f"tau {tau:.4g}, mean agreement {agreements}", file=sys.stderr)


if __name__ == "__main__":
    main()
