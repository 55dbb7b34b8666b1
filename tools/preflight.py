"""Says in one line why an installation cannot work, before it starts. Runs on any Python 3."""

import glob
import importlib.util
import shutil
import sys

MIN_PYTHON = (3, 11)
MIN_FREE_GB = 8  # PyTorch and its CUDA libraries take 5.4 GB, and pip unpacks them before it moves them


def problem(version=None, free_bytes=None, folder="."):
    """Why the course cannot be installed here, as one line with the fix, or None.

    Args:
        version: (major, minor) of Python; that of the running one by default.
        free_bytes: free disk space; that of `folder` by default.
        folder: the checkout. If its .venv holds PyTorch already, disk space is not looked at.
    """
    version = version or tuple(sys.version_info[:2])
    if version < MIN_PYTHON:
        return "Python {}.{} is too old, 3.11 or newer is needed; install one and name it: make lab PYTHON=python3.12".format(
            *version
        )
    if importlib.util.find_spec("ensurepip") is None:
        return "this Python cannot make virtual environments; on Debian and Ubuntu: sudo apt-get install python3-venv"
    free = (shutil.disk_usage(folder).free if free_bytes is None else free_bytes) / 1e9
    if free < MIN_FREE_GB and not glob.glob(folder + "/.venv/lib*/python*/site-packages/torch/version.py"):
        return "only {:.1f} GB of disk is free here, {} GB are needed; make room or clone to another disk".format(
            free, MIN_FREE_GB
        )
    return None


if __name__ == "__main__":
    found = problem()
    if found:
        sys.exit("error: " + found)
