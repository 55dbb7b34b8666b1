"""Checks every jaxtyping annotation of course_lib while the tests run, and offers what tests share."""

import hypothesis
import jaxtyping
import matplotlib
import pytest
import torch

matplotlib.use("agg")  # not through MPLBACKEND: notebooks' kernels inherit it and would draw nothing
hypothesis.settings.register_profile("course", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("course")
HOOK = jaxtyping.install_import_hook("course_lib", "beartype.beartype")


@pytest.fixture
def unchecked():
    """Switch the run-time shape checks off, as users have it, to test our own error messages."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def seeded():
    """Give every test the same random numbers, whatever ran before it."""
    torch.manual_seed(0)
