"""Chapter 02's longer trainings: denoising, inpainting, super-resolution with five losses, compression.

Working example: ``python tests/benchmarks/bench_restoration.py`` (about 40 minutes on 2 cores). An interrupted part
goes on where it was (its CPU seconds then are those of the last call), a part that is done is only measured again.
``--parts sr2`` makes one; ``--fraction 0.1 --out FOLDER`` tries all on a tenth of the budget. Networks go to
course_lib/restoration/checkpoints, numbers to restoration.json beside this file; notebook 02 quotes them.
Everything is measured on crops of, or whole, test photographs, of which no part was trained on.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from course_lib.data import photos
from course_lib.lpips import LPIPS
from course_lib.paths import cache_dir, write_atomically
from course_lib.perceptual_losses import ssim
from course_lib.restoration import (
    BASELINES,
    LAMBDAS,
    TASKS,
    Codec,
    PatchDiscriminator,
    Restore,
    UNet,
    bits_per_pixel,
    charbonnier,
    clamped,
    compress,
    decode_jpeg,
    decompress,
    encode_jpeg,
    fit,
    fit_codec,
    jpeg_header_size,
    l1,
    l2,
    load_network,
    psnr,
    psnr_by_mask,
    restore,
    save_network,
    weighted_sum,
)
from course_lib.restoration.checkpoints import FOLDER

RESULT = Path(__file__).with_name("restoration.json")
CROPS, BATCH = 2400, 16
CODEC_EPOCHS, CODEC_BATCH = 10, 8
COLUMNS = ("bits per pixel", "psnr", "ssim", "lpips st-alex")
QUALITIES = (3, 5, 8, 12, 18, 25, 35, 50, 65, 80)
lpips = functools.cache(LPIPS)


@dataclass(frozen=True)
class Part:
    """One training: what is undone, with which network and loss, for how long, from which part's weights on."""

    task: str
    epochs: int
    loss: str = "l1"
    learning_rate: float = 2e-3
    start: str | None = None
    skip: bool = True
    residual: bool = True

    @property
    def channels(self) -> int:
        """Of the network's input."""
        return 4 if self.task.startswith("inpainting") else 3


SHORT = {"task": "sr4", "epochs": 2, "start": "sr4", "learning_rate": 5e-4}
PARTS = {
    "gaussian": Part("gaussian", 20),
    "gaussian-no-skip": Part("gaussian", 20, skip=False, residual=False),
    "poisson": Part("poisson", 14),
    "inpainting": Part("inpainting-any", 20),
    "sr2": Part("sr2", 10),
    "sr4": Part("sr4", 14),
    **{f"sr4-{loss}": Part(loss=loss, **SHORT) for loss in ("l2", "l1", "charbonnier", "lpips", "adversarial")},
}


def loss_named(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a part; the adversarial one is the perceptual one plus the discriminator's."""
    if name in ("lpips", "adversarial"):
        return weighted_sum((1.0, l1), (0.3, clamped(lpips("st-alex").network)))
    return {"l1": l1, "l2": l2, "charbonnier": charbonnier}[name]


def measure(network: UNet, task: str) -> dict:
    """Ours and the baselines, on test crops; inpainting by each kind of mask."""
    kinds = ("random", "block", "text") if task.startswith("inpainting") else (None,)
    tasks = [f"inpainting-{kind}" if kind else task for kind in kinds]
    return {name: {"ours": row(name, functools.partial(restore, network)), **baseline_rows(name)} for name in tasks}


@functools.cache
def baseline_rows(task: str) -> dict:
    """Of every baseline."""
    return {name: row(task, baseline) for name, baseline in BASELINES[task].items()}


def row(task: str, method: Restore) -> dict:
    """Means over 60 test crops of 64 x 64 pixels, 20 from each photograph, and PSNR by photograph."""
    images, photo = photos.crops("test", 60, 64, seed=7)
    truth = images.float() / 255
    degraded = TASKS[task](truth, torch.Generator().manual_seed(8))
    restored = method(degraded)
    metrics = {"psnr": psnr, "ssim": ssim, "lpips st-alex": lpips("st-alex"), "lpips st-vgg": lpips("st-vgg")}
    pairs = list(zip(restored.split(20), truth.split(20), strict=True))
    with torch.no_grad():
        values = {name: torch.cat([metric(*pair) for pair in pairs]) for name, metric in metrics.items()}
    means = {name: round(value.mean().item(), 4) for name, value in values.items()}
    if degraded.mask is not None:
        raw = method(degraded, paste=False) if isinstance(method, functools.partial) else restored
        apart = psnr_by_mask(raw, truth, degraded.mask)  # 99 where pixels are exact
        missing, known = (round(value.clamp(max=99).mean().item(), 2) for value in apart)
        means |= {"psnr of missing pixels": missing, "psnr of known pixels": known}
    print(f"{task:18} {getattr(method, 'func', method).__name__:16} {means}", flush=True)
    by_photo = {photos.PHOTOGRAPHS[i]: round(values["psnr"][photo == i].mean().item(), 2) for i in photo.unique()}
    return means | {"psnr by photograph": by_photo}


def train_part(name: str, epochs: int, work: Path, networks: Path, precision: str) -> dict:
    """Train one network, or continue, store it, and measure what was stored."""
    part = PARTS[name]
    torch.manual_seed(0)
    network = UNet(part.channels, skip=part.skip, residual=part.residual)
    if part.start:
        network.load_state_dict(load_network(networks / f"{part.start}.pt").state_dict())
        precision = "fp32"  # LPIPS has poor gradients in bf16, and all losses get the same
    task, start = TASKS[part.task], time.process_time()
    fit(
        network, task, photos.crops("train", CROPS, 64, seed=0).images, loss_named(part.loss), epochs=epochs,
        batch_size=BATCH, learning_rate=part.learning_rate, folder=work / name, precision=precision, progress=name,
        discriminator=PatchDiscriminator() if part.loss == "adversarial" else None, adversarial_weight=0.02,
        settings={"part": str(part)},
    )  # fmt: skip
    seconds = time.process_time() - start
    save_network(network, networks / f"{name}.pt")
    rows = measure(load_network(networks / f"{name}.pt"), part.task)
    return {
        "loss": part.loss,
        "precision": precision,
        "steps": epochs * (CROPS // BATCH),
        "cpu seconds": round(seconds),
        "measured": rows,
    }


def codec_crops(n: int, size: int) -> Tensor:
    """Crops for compression: half chosen for their detail, half anywhere, as whole photographs have flat areas too."""
    generator, anywhere = torch.Generator().manual_seed(1), []
    pictures = list(photos.load("train").values())
    for i in range(n // 2):
        picture = pictures[i % len(pictures)]
        top, left = (int(torch.randint(side - size + 1, (1,), generator=generator)) for side in picture.shape[1:])
        anywhere.append(picture[:, top : top + size, left : left + size])
    return torch.cat([photos.crops("train", n - len(anywhere), size, seed=0).images, torch.stack(anywhere)])


def train_codec(epochs: int, work: Path, networks: Path, precision: str) -> dict:
    """Train the codec, store it, and draw its rate-distortion curve beside JPEG's on whole test photographs."""
    torch.manual_seed(0)
    codec, crops, start = Codec(), codec_crops(CROPS, 96), time.process_time()
    codec.start_from(crops)
    fit_codec(
        codec,
        crops,
        epochs=epochs,
        batch_size=CODEC_BATCH,
        folder=work / "compression",
        precision=precision,
        progress="compression",
    )
    seconds = time.process_time() - start
    save_network(codec, networks / "compression.pt")
    codec = load_network(networks / "compression.pt")
    codec.freeze()  # tables of the weights as they are stored
    save_network(codec, networks / "compression.pt")
    coders = {
        "ours": (range(len(LAMBDAS)), functools.partial(compress, codec), functools.partial(decompress, codec)),
        "jpeg": (QUALITIES, encode_jpeg, decode_jpeg),
        "jpeg 4:4:4": (QUALITIES, functools.partial(encode_jpeg, subsampling="4:4:4"), decode_jpeg),
    }
    rows: dict[str, dict] = {way: {} for way in coders}
    for name, picture in photos.load("test").items():
        image = picture[None].float() / 255
        for way, (qualities, encode, decode) in coders.items():
            files = [encode(image, quality) for quality in qualities]
            rows[way][name] = [point(data, decode(data), image) for data in files]
            print(name, way, rows[way][name], flush=True)
    crop = photos.crops("test", 1, 64, seed=7).images.float() / 255
    header = jpeg_header_size(encode_jpeg(crop, 50, optimize=False))
    return {
        "precision": precision, "steps": epochs * (CROPS // CODEC_BATCH), "cpu seconds": round(seconds),
        "columns": COLUMNS, "lambdas": LAMBDAS,
        "jpeg qualities": QUALITIES, "curves": rows, "jpeg header bytes": header,
        "jpeg header bpp at 64x64": round(8 * header / 64**2, 3),
    }  # fmt: skip


@torch.no_grad()
def point(data: bytes, decoded: Tensor, image: Tensor) -> list[float]:
    """One point of a rate-distortion curve, as COLUMNS says."""
    values = (metric(decoded, image).item() for metric in (psnr, ssim, lpips("st-alex")))
    return [round(value, 4) for value in (bits_per_pixel(data, image), *values)]


def main() -> None:
    """Train and measure, part by part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, "compression"], default=[*PARTS, "compression"])
    parser.add_argument("--fraction", type=float, default=1.0, help="of the budget")
    parser.add_argument("--out", type=Path, help="write networks and numbers here instead")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 where a processor has it")
    arguments = parser.parse_args()
    result_file = arguments.out / RESULT.name if arguments.out else RESULT
    networks = arguments.out or FOLDER
    work = (arguments.out or cache_dir()) / "bench_restoration"
    how = {"work": work, "networks": networks, "precision": arguments.precision}
    for name in arguments.parts:
        epochs = max(1, round(arguments.fraction * (CODEC_EPOCHS if name == "compression" else PARTS[name].epochs)))
        measured = train_codec(epochs, **how) if name == "compression" else train_part(name, epochs, **how)
        result = json.loads(result_file.read_text()) if result_file.exists() else {}
        result |= {"command": "make bench-restoration", "torch": torch.__version__.split("+")[0]}
        result[name] = measured | {"threads": torch.get_num_threads()}
        write_atomically(result_file, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
