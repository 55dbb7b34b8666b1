"""What distillation on a cluster takes: floating-point operations, bytes and hours, from a measured throughput."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.distillation.targets import DTYPES
from course_lib.lipschitz import LipSimNet

IMAGENET = 1_281_167
PICTURE_BYTES = 115_000  # of an average ImageNet JPEG: the training set has 147 GB


@dataclass(frozen=True)
class Budget:
    """The cost of a distillation, from numbers that one can check on paper.

    Attributes:
        images, epochs, batch_size: of the recipe; `batch_size` is that of all processes together.
        processes: how many share a batch, each with a GPU.
        throughput: images per second of *one* process, forward and backward, both views counted as one image.
        parameters: of the student.
        flops_per_image: forward and backward pass through both views of an image.
        flops_per_step: rescaling the weights, forward and backward: once per step and process, whatever the batch.
        dim: numbers in a teacher's embedding.
        picture_bytes: of a picture's file, on average.
        dtype: of the stored targets, "fp16" or "fp32".
        orientations: 2 if the embeddings of mirrored images are stored, too.
        teacher_throughput: images per second that the teacher embeds in one process.
    """

    images: int
    epochs: int
    batch_size: int
    processes: int
    throughput: float
    parameters: int
    flops_per_image: int
    flops_per_step: int
    dim: int
    picture_bytes: int = PICTURE_BYTES
    dtype: str = "fp16"
    orientations: int = 2
    teacher_throughput: float | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole run; the rest of an epoch that fills no batch is left out."""
        return self.epochs * (self.images // self.batch_size)

    @property
    def flops(self) -> float:
        """Floating-point operations of the whole run, of all processes; a product and a sum are two."""
        return float(self.steps) * (self.batch_size * self.flops_per_image + self.processes * self.flops_per_step)

    @property
    def flops_per_second(self) -> float:
        """What one process achieves at the measured throughput."""
        return self.flops / (self.hours * 3600 * self.processes)

    @property
    def hours(self) -> float:
        """Of the student's training, if the exchange between processes hides behind the computation."""
        return self.steps * self.batch_size / (self.throughput * self.processes) / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours times processes."""
        return self.hours * self.processes

    @property
    def teacher_hours(self) -> float | None:
        """Of embedding all images once, in one process; None if its throughput is not known."""
        if self.teacher_throughput is None:
            return None
        return self.images * self.orientations / self.teacher_throughput / 3600

    @property
    def target_bytes(self) -> int:
        """Of the file of targets."""
        return self.orientations * self.images * self.dim * _itemsize(self.dtype)

    @property
    def read_bytes_per_second(self) -> float:
        """Pictures and targets that all processes together read."""
        each = self.picture_bytes + self.dim * _itemsize(self.dtype)
        return each * self.throughput * self.processes

    @property
    def state_bytes(self) -> int:
        """Weights, gradients and Adam's two moments in each process, float32; activations come on top."""
        return 4 * 4 * self.parameters

    @property
    def exchanged_bytes(self) -> float:
        """Sent by each process in each step: gradients around a ring, and embeddings of its share to all others."""
        ring = 2 * (self.processes - 1) / self.processes * 4 * self.parameters
        return ring + 3 * (self.processes - 1) * self.batch_size / self.processes * self.dim * 4

    @property
    def exchanged_bytes_per_second(self) -> float:
        """What a process's network connection has to carry at the measured throughput."""
        return self.exchanged_bytes * self.throughput * self.processes / self.batch_size

    def lines(self) -> list[str]:
        """The page, a line for each quantity."""
        rows = [
            ("steps", f"{self.steps:,}"),
            ("FLOP per image", f"{self.flops_per_image:.3g} (two views, forward and backward)"),
            ("FLOP per step", f"{self.flops_per_step:.3g} in each process, to rescale the weights"),
            ("FLOP in all", f"{self.flops:.3g}, at {self.flops_per_second:.3g} per second and GPU"),
            ("student", f"{self.hours:.3g} hours on {self.processes} GPUs, {self.gpu_hours:.3g} GPU hours"),
            ("targets", f"{self.target_bytes / 1e9:.3g} GB, {self.orientations} x {self.dim} numbers per image"),
            ("pictures", f"{self.images * self.picture_bytes / 1e9:.3g} GB"),
            ("reading", f"{self.read_bytes_per_second / 1e6:.3g} MB per second, all processes together"),
            ("memory", f"{self.state_bytes / 1e9:.3g} GB per GPU, and activations"),
            ("exchange", f"{self.exchanged_bytes / 1e9:.3g} GB per GPU and step, "
                         f"{self.exchanged_bytes_per_second / 1e9:.3g} GB per second"),
        ]  # fmt: skip
        if self.teacher_hours is not None:
            rows.insert(5, ("teacher", f"{self.teacher_hours:.3g} hours on one GPU"))
        return [f"{name:<15} {text}" for name, text in rows]


def arithmetic(
    student: str,
    throughput: float,
    *,
    images: int = IMAGENET,
    epochs: int = 40,
    batch_size: int = 512,
    nodes: int = 4,
    gpus_per_node: int = 4,
    dim: int = 1792,
    teacher_throughput: float | None = None,
    orientations: int = 2,
) -> Budget:
    """The cost of distilling a preset, by default as published: ImageNet-1k on 4 x 4 GPUs.

    Args:
        student: name of a preset; see :meth:`~course_lib.lipschitz.LipSimNet.preset`.
        throughput: images per second of one GPU; see :func:`measured_throughput`.
        images: in an epoch.
        epochs: of the recipe.
        batch_size: images per step, of all processes together.
        nodes: machines.
        gpus_per_node: processes on each.
        dim: numbers in the teacher's embedding.
        teacher_throughput: images per second that the teacher embeds.
        orientations: 2 to store the embeddings of mirrored images, 1 not to.

    Raises:
        ValueError: for an unknown preset, or numbers that are not positive.
    """
    numbers = (throughput, images, epochs, batch_size, nodes, gpus_per_node, dim, teacher_throughput or 1)
    if min(numbers) <= 0 or orientations not in (1, 2):
        raise ValueError(f"{numbers} and {orientations} orientations; all are positive, orientations 1 or 2")
    with torch.device("meta"):
        network = LipSimNet.preset(student, dim)
    # a line through two points: what a step costs without images, and what each image adds
    one, two = (training_flops(network, 2 * n) for n in (1, 2))
    parameters = sum(p.numel() for p in network.parameters())
    return Budget(
        images, epochs, batch_size, nodes * gpus_per_node, throughput, parameters, two - one, 2 * one - two, dim,
        orientations=orientations, teacher_throughput=teacher_throughput,
    )  # fmt: skip


def training_flops(network: LipSimNet, n: int) -> int:
    """Floating-point operations of matrix products and convolutions, forward and backward, for a batch of `n`.

    They are counted from shapes, and nothing is computed: the network may be on the device "meta".
    """
    device = next(network.parameters()).device
    images = torch.zeros(n, 3, network.image_size, network.image_size, device=device)
    network.train()
    with FlopCounterMode(display=False) as counter:
        # not network(images), which checks their values
        nn.Sequential(network.first, network.convs, network.linear, network.last)(images).sum().backward()
    return counter.get_total_flops()


def measured_throughput(
    student: str,
    batch_size: int,
    *,
    steps: int = 10,
    warmup: int = 3,
    dim: int | None = None,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
) -> float:
    """Images per second of one process: forward and backward pass of both views, and a step of Adam.

    Args:
        student: name of a preset.
        batch_size: images per step of this process.
        steps: that are timed.
        warmup: steps before these.
        dim: numbers in an embedding; None: the preset's own.
        device: where to compute.
        precision: "fp32" or "bf16".

    Raises:
        ValueError: for an unknown preset or device.
    """
    device = torch.device(device)
    network = LipSimNet.preset(student, dim).to(device).train()
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    views = torch.rand(2 * batch_size, 3, network.image_size, network.image_size, device=device)
    started = 0.0
    for step in range(warmup + steps):
        if step == warmup:
            _wait_for(device)
            started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = network(views).float().square().mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
    _wait_for(device)
    return steps * batch_size / (time.perf_counter() - started)


def _itemsize(dtype: str) -> int:
    return np.dtype(DTYPES[dtype]).itemsize


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
