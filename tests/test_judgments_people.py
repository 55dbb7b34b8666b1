"""Real people: the published LPIPS agrees with the judgments of materials as often as was measured elsewhere."""

import numpy as np
import pytest
import torch

from course_lib.data import materials
from course_lib.data.pictures import read_pixels
from course_lib.judgments import two_afc_score
from course_lib.lpips import LPIPS
from course_lib.paths import repo_root

SHARED = repo_root().parent / "shared"
FOLDER, ALEX = SHARED / "data" / "material_similarity", SHARED / "weights" / "alex_lpips_v0.1.npz"


@pytest.mark.skipif(not (FOLDER.is_dir() and ALEX.is_file()), reason="needs the human judgments and AlexNet's weights")
def test_lpips_alexnet_agrees_with_the_majority_of_people_on_716_of_1000_triplets_of_materials():
    data = materials.triplets(FOLDER, "ennis")
    names = sorted({*data.ref, *data.p0, *data.p1})
    place = {name: i for i, name in enumerate(names)}
    ref, p0, p1 = (torch.tensor([place[name] for name in column]) for column in (data.ref, data.p0, data.p1))
    images = torch.stack([read_pixels(name, 64) for name in names]).float() / 255
    metric = LPIPS("alex", weights=None)
    metric.load_trunk({key: torch.from_numpy(value) for key, value in np.load(ALEX).items()})
    with torch.no_grad():
        points = torch.cat([metric.embed(batch) for batch in images.split(20)])
    distance = torch.cdist(points, points).square()  # 100 pictures, 21,406 triplets: each pair once
    d0, d1 = distance[ref, p0], distance[ref, p1]
    majority = ((d1 < d0) == (data.judge > 0.5)).double().mean().item()
    assert majority == pytest.approx(0.716, abs=0.003)
    assert two_afc_score(d0, d1, data.judge) == pytest.approx(0.684, abs=0.003)  # lower: it counts single votes
