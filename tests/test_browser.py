"""A real browser runs notebooks in JupyterLab: moves the slider of chapter 07, votes in the trial of chapter 08."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import sync_playwright

from course_lib.paths import repo_root

NOTEBOOK = Path(os.environ.get("COURSE_BROWSER_NOTEBOOK", repo_root() / "notebooks" / "07_lpips.ipynb"))
NAME = "notebook.ipynb"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # or cells outside the window have no elements
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --disable-dev-shm-usage")  # fmt: skip

# what is run before the kernel is connected is lost; the indicator says idle even then
READY = """(() => {
    const context = window.jupyterapp?.shell.currentWidget?.sessionContext
    const kernel = context?.isReady && context.session?.kernel
    return kernel?.connectionStatus === "connected" && kernel?.status === "idle"
})()"""


@pytest.fixture
def folder():
    """A folder inside the checkout, as home of the browser and of JupyterLab, that is removed afterwards."""
    (repo_root() / ".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=repo_root() / ".cache", prefix="browser-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def chapter_07():
    """Chapter 07 without its outputs."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def trial_of_two():
    """The trial of chapter 08 alone, two triplets long, with votes beside the notebook."""
    source = "from course_lib.judgments.trial import *\ntrial_widget(Trial(size=2, folder='.'))"
    kernel = {"name": "python3", "display_name": "Python 3"}
    return new_notebook(cells=[new_code_cell(source)], metadata={"kernelspec": kernel})


@pytest.fixture
def lab(folder, request):
    """Address of a running JupyterLab whose only notebook is the one that the test's parameter makes."""
    notebook = request.param()
    (folder / "work").mkdir()
    nbformat.write(notebook, folder / "work" / NAME)
    for name, content in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder / 'work'}",
        f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    home = {
        "HOME": str(folder),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    environment = {**os.environ, **home, "COURSE_CACHE": str(repo_root() / ".cache" / "course")}
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/api", server, folder / "lab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/{NAME}?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def wait_for(url, server, log):
    """Return as soon as the server answers."""
    for _ in range(300):
        assert server.poll() is None, f"JupyterLab ended: {log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab does not answer: {log.read_text()[-2000:]}")


@pytest.fixture
def page(folder):
    """A page of a headless Chromium with a profile of its own."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on this machine; on Debian and Ubuntu: sudo apt-get install chromium")
    assert CHROMIUM, "CI has to install Chromium, see .ci/run"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            folder / "profile", executable_path=CHROMIUM, args=FLAGS.split(), viewport={"width": 1300, "height": 1000},
            env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
        page = browser.pages[0]
        page.set_default_timeout(60_000)
        yield page
        browser.close()


@pytest.mark.browser
@pytest.mark.timeout(400)
@pytest.mark.parametrize("lab", [chapter_07], indirect=True)
def test_slider_of_chapter_07_changes_the_printed_distance(page, lab):
    run_all(page, lab)
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
    assert prompts and all(re.fullmatch(r"\[\d+\]:", prompt) for prompt in prompts), prompts

    panel = page.locator(".widget-interact").filter(has_text="LPIPS").first
    handle = panel.get_by_role("slider").first
    output = panel.locator(".widget-output")
    handle.evaluate("handle => handle.scrollIntoView()")
    before = distances(output.inner_text())
    assert before, f"no number after LPIPS in {output.inner_text()!r}"
    handle.press("ArrowRight")
    handle.press("ArrowRight")
    until(page, lambda: distances(output.inner_text()) not in ([], before), 30)


@pytest.mark.browser
@pytest.mark.timeout(400)
@pytest.mark.parametrize("lab", [trial_of_two], indirect=True)
def test_two_clicks_end_a_trial_of_two_and_show_its_scores(page, lab, folder):
    run_all(page, lab)
    for number, side in enumerate(("left", "right"), start=1):
        page.get_by_text(f"Triplet {number} of 2").wait_for()
        page.get_by_role("button", name=f"the {side} one is closer").click()
    page.get_by_text("All 2 triplets are judged").wait_for()
    page.get_by_text("The observers are simulated").wait_for()
    assert re.search(r"you\D+\d+ %", page.locator(".jp-OutputArea table").inner_text())
    assert json.loads(next((folder / "work").glob("trial-*.json")).read_text())["votes"] == [0, 1]


def run_all(page, lab):
    """Open the notebook and run it from top to bottom."""
    page.goto(lab)
    until(page, lambda: page.evaluate(READY), 60)
    page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells').then(ok => window.ran = ok)")
    until(page, lambda: page.evaluate("window.ran !== undefined"), 240)
    assert page.evaluate("window.ran"), "a cell failed"
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0


def until(page, condition, seconds):
    """Wait until the condition holds, at most so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        page.wait_for_timeout(100)


def distances(text):
    """The numbers in the lines that speak of LPIPS."""
    lines = [line for line in text.splitlines() if "LPIPS" in line]
    return re.findall(r"\d+\.\d+", " ".join(lines))
