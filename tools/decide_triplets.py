"""Let shift-tolerant LPIPS-AlexNet decide the simulated triplets; writes what course_lib.certification.labels ships.

    python tools/decide_triplets.py

Takes about three minutes: 33,000 images go through the network.
"""

import datetime
import io
import json
import platform
import sys
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from course_lib import weights
from course_lib.certification import labels
from course_lib.data import SPLITS, triplets
from course_lib.lpips import LPIPS
from course_lib.paths import write_atomically


@torch.no_grad()
def main() -> None:
    """Measure and write."""
    metric = LPIPS("st-alex")
    arrays: dict[str, Any] = {}
    for split in SPLITS:
        data = triplets.simulated(split)
        batches = tqdm(data.batches(50), total=len(data) // 50, desc=split)
        parts = [torch.stack(metric.triplet_distances(*batch[:3])) for batch in batches]
        arrays |= dict(zip((f"{split}_d0", f"{split}_d1"), torch.cat(parts, 1).numpy(), strict=True))
    record = {
        "what": "distances of the simulated triplets by shift-tolerant LPIPS-AlexNet: d0 to p0, d1 to p1",
        "weights_sha256": weights.FILES["st-alex"].sha256,
        "command": "python tools/decide_triplets.py",
        "date": datetime.date.today().isoformat(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_atomically(labels.DISTANCES, content.getvalue())
    write_atomically(labels.PROVENANCE, (json.dumps(record, indent=1) + "\n").encode())
    print(f"wrote {labels.DISTANCES.name} and {labels.PROVENANCE.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
