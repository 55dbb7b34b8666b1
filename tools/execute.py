"""Executes notebooks in place, and records in each how long it took and how much memory.

Working example: ``python tools/execute.py notebooks/07_lpips.ipynb``. A notebook with a failing cell is left as
it was, the cell is named, and the exit code is 1.
"""

import argparse
import sys
import threading
import time
from math import ceil
from pathlib import Path
from queue import Empty
from typing import Any

import nbformat
import psutil
from jupyter_client import KernelClient
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from course_lib.paths import write_atomically

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"


class PeakMemory:
    """Samples, in a ``with`` block, the memory of the processes that are started in it; `mb` is the largest sum."""

    mb = 0.0

    def __enter__(self) -> "PeakMemory":
        self._others = set(psutil.Process().children(recursive=True))
        self._command = psutil.Process().cmdline()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            total = 0
            for process in set(psutil.Process().children(recursive=True)) - self._others:
                try:
                    # between fork and exec a child still shows the memory, and the command, of this process
                    if process.cmdline() != self._command:
                        total += process.memory_info().rss
                except psutil.Error:  # it ended between the two calls
                    continue
            self.mb = max(self.mb, total / 2**20)


def tidy(notebook: NotebookNode) -> None:
    """Remove, in place, what changes with the machine or the run: timings, versions, ids of live widgets."""
    metadata = {"course": notebook.metadata.get("course", {})}
    metadata |= {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    notebook.metadata = nbformat.from_dict(metadata)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            # without its kernel a stored widget shows an error message instead of itself
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                output.pop("transient", None)


class Client(NotebookClient):
    """Looks for the kernel's reply every second.

    The signal that one has come is sometimes lost (in 5 of 180 kernels, jupyter_client 8.10 and ipykernel 7.4), and
    nbclient would look again only when the cell's time is over.
    """

    async def async_start_new_kernel_client(self) -> KernelClient:
        """Start the client whose replies are asked for in short turns."""
        client = await super().async_start_new_kernel_client()
        wait = client.shell_channel.get_msg

        async def get_msg(timeout: float) -> dict[str, Any]:
            for _ in range(ceil(timeout) - 1):
                try:
                    return await wait(timeout=1)
                except Empty:
                    continue
            return await wait(timeout=1)

        client.shell_channel.get_msg = get_msg
        return client


def execute(path: Path, timeout: int) -> NotebookNode:
    """Run every cell in a fresh kernel in the notebook's folder; the executed notebook, nothing written.

    Raises:
        RuntimeError: one line that names the notebook, the cell, and what went wrong there.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    client = Client(notebook, timeout=timeout, kernel_name="python3", resources=resources)
    client.record_timing, client.coalesce_streams = False, True
    started_cells: list[int] = []
    client.on_cell_start = lambda cell, cell_index: started_cells.append(cell_index + 1)
    started = time.perf_counter()
    try:
        with PeakMemory() as peak:
            client.execute()
    except CellExecutionError as error:
        reason = f"{error.ename}: {' '.join(str(error.evalue).split())}"
        raise RuntimeError(f"{path}, cell {started_cells[-1]}: {reason}") from None
    except (CellTimeoutError, DeadKernelError) as error:
        reason = f"longer than {timeout} s" if isinstance(error, CellTimeoutError) else "the kernel died"
        raise RuntimeError(f"{path}, cell {started_cells[-1]}: {reason}") from None
    tidy(notebook)
    notebook.metadata.course.seconds = round(time.perf_counter() - started, 1)
    notebook.metadata.course.peak_mb = round(peak.mb)
    return notebook


def main(arguments: list[str] | None = None) -> int:
    """Execute the named notebooks; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").replace("``", ""))
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--timeout", type=int, default=120, help="seconds per cell (default: 120)")
    options = parser.parse_args(arguments)
    failures = 0
    for path in options.notebooks:
        try:
            notebook = execute(path, options.timeout)
        except (RuntimeError, OSError, nbformat.ValidationError) as error:
            print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
            failures += 1
            continue
        write_atomically(path, (nbformat.writes(notebook) + "\n").encode())
        print(f"{path}: {notebook.metadata.course.seconds:.1f} s, {notebook.metadata.course.peak_mb} MB")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
