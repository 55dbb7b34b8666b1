"""Several processes, one student: ``torchrun --nproc-per-node 4 -m course_lib distill ...``.

Each process embeds its share of the global batch, all of them exchange embeddings, and each computes the loss of the
*whole* batch. Averaging the losses of the shares instead, as is usual, would train another student: neither the root of
a mean nor a loss about pairs is the average of those of its parts. So the number of processes does not change what is
learnt, only how fast.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from course_lib.training import rank_and_world

PATIENCE = datetime.timedelta(minutes=10)  # to wait for another process, which may be writing a checkpoint


class ProcessError(ConnectionError):
    """Another process has ended, or cannot be reached."""


def launched() -> int:
    """How many processes torchrun has started, this one among them; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


def own_device(device: str | torch.device = "cpu") -> torch.device:
    """The device of this process: of several on one machine, each has a GPU of its own.

    Raises:
        ValueError: for an unknown device, or if torchrun has started more processes on this machine than it has GPUs.
    """
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); use cpu") from None
    if device.type != "cuda" or launched() == 1:
        return device
    local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= count:
        raise ValueError(f"process {local} of this machine has no GPU, there are {count}; use --nproc-per-node {count}")
    return torch.device("cuda", local)


@contextlib.contextmanager
def process_group(device: str | torch.device = "cpu") -> Iterator[None]:
    """Join the processes that torchrun has started, with nccl on GPUs and gloo elsewhere; without torchrun do nothing.

    If this process fails, it does not wait for the others, and torchrun ends them. If another one fails, the next
    exchange with it raises, at once or after ten minutes.

    Raises:
        ProcessError: if another process cannot be reached any more.
    """
    if launched() == 1:
        yield
        return
    device = own_device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        yield
        distributed.barrier()
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError) or not _lost_contact(error):
            raise
        first = str(error).splitlines()[0]
        raise ProcessError(
            f"process {rank_and_world()[0]} lost the others ({first}); the checkpoint is intact: run the same command"
        ) from error
    distributed.destroy_process_group()


def share(batch: Tensor) -> Tensor:
    """This process's part of a global batch; the parts follow one another in the order of ranks.

    Raises:
        ValueError: if the batch cannot be divided equally.
    """
    rank, world = rank_and_world()
    if len(batch) % world:
        raise ValueError(
            f"a batch of {len(batch)} cannot be divided among {world} processes; use a multiple of {world}"
        )
    return batch.chunk(world)[rank]


def gathered(rows: Tensor) -> Tensor:
    """Rows of all processes, in the order of ranks; a gradient goes to the own ones only.

    Every process computes the same loss, and DistributedDataParallel averages what are parts of one gradient; so each
    part is multiplied by their number here, and the average becomes the sum.
    """
    rank, world = rank_and_world()
    if world == 1:
        return rows
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world)]
    distributed.all_gather(parts, rows.detach().contiguous())
    if rows.requires_grad:
        own = rows.clone()
        own.register_hook(lambda gradient: gradient * world)
        parts[rank] = own
    return torch.cat(parts)


def distributed_model(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, with gradients averaged over the processes; itself where there is one process."""
    if rank_and_world()[1] == 1:
        return model
    # Lipschitz layers have no buffers, and rescale their weights anew in every training step
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids)


def _lost_contact(error: RuntimeError) -> bool:
    if isinstance(error, distributed.DistError):
        return True
    text = str(error).lower()
    return any(word in text for word in ("gloo", "connection", "nccl", "timed out", "timeout"))
