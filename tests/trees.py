"""Miniature data sets of judgments, laid out as the real ones are."""

from pathlib import Path

import numpy as np
from PIL import Image

NIGHTS_HEADER = "id,left_vote,right_vote,votes,ref_path,left_path,right_path,split,is_imagenet"


def save_picture(path, seed=0, size=(16, 16)):
    """A picture of random pixels; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_vote(path, vote):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array([vote], np.float32))
    return path


def cut_off(path):
    """Keep only the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def folder(root, votes=(0.0, 0.2, 1.0), pictures=("ref", "p0", "p1"), name="judge", size=(16, 16)):
    """ref/000000.png … judge/000000.npy …, as in one subset of BAPPS."""
    for i, vote in enumerate(votes):
        for k, column in enumerate(pictures):
            save_picture(root / column / f"{i:06d}.png", 10 * i + k, size)
        save_vote(root / name / f"{i:06d}.npy", vote)
    return root


def bapps(root, split="val", subsets=("traditional", "cnn"), kind="2afc", size=(16, 16)):
    columns = {"2afc": (("ref", "p0", "p1"), "judge"), "jnd": (("p0", "p1"), "same")}[kind]
    for subset in subsets:
        folder(root / kind / split / subset, (0.0, 0.2, 1.0), *columns, size)
    return root


def nights(root, rows, size=(20, 20)):
    """`rows` are lines of data.csv from left_vote to votes, and split, is_imagenet: "1,0,8 test,True"."""
    lines = [NIGHTS_HEADER]
    for i, row in enumerate(rows):
        votes, where = row.split(" ")
        paths = [f"ref/000/{i:03d}.png", f"distort/000/{i:03d}_0.png", f"distort/000/{i:03d}_1.png"]
        for k, path in enumerate(paths):
            save_picture(root / path, 10 * i + k, size)
        lines.append(f"{i},{votes},{','.join(paths)},{where}")
    (root / "data.csv").write_text("\n".join(lines) + "\n")
    return root


def replace(path: Path, old: str, new: str):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
