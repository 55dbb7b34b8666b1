"""Several processes teach the student that one would, and when one of them dies nothing hangs and nothing is lost."""

import dataclasses
import multiprocessing
import os
import pickle
import subprocess
import sys
import time

import psutil
import pytest
import torch
from torch import distributed, nn

from course_lib.distillation import Exam, Recipe, Teacher, TensorImages, apply_views, distill, learning, parallel
from course_lib.lipschitz import LipSimNet
from course_lib.paths import cache_dir, repo_root
from course_lib.training import TrainingError, load_checkpoint, train


def coloured_noise(n):
    """Images of one colour each, with noise."""
    generator = torch.Generator().manual_seed(1)
    colour, noise = torch.rand(n, 3, 1, 1, generator=generator), torch.rand(n, 3, 16, 16, generator=generator)
    return (200 * colour + 55 * noise).byte()


DATA = TensorImages("coloured noise", coloured_noise(27))
SHARED_CACHE = cache_dir()
RECIPE = Recipe(epochs=2, scale=5.0, batch_size=8, learning_rate=0.002, warmup_steps=1, clip=1.0)


class MeanColour(nn.Module):
    """A teacher that gives mean and standard deviation of each colour."""

    def forward(self, images):
        return torch.cat([images.mean((2, 3)), images.std((2, 3))], 1)


def learnt(recipe, folder=None):
    """A small student after the recipe: its weights, its distances between the images, and its history."""
    torch.manual_seed(0)
    student = LipSimNet.published(6, 1, 1, 8, out_features=6, image_size=16)
    teacher = Teacher("mean colour", MeanColour(), size=16, dim=6)
    exam = Exam(teacher, DATA, limit=6)  # only in the first process, whose layers keep their rescaled weights for it
    done = distill(student, teacher, DATA, recipe, folder=folder, exam=exam)
    weights = torch.cat([p.detach().flatten() for p in done.student.parameters()])
    with torch.no_grad():
        distances = torch.pdist(done.student(DATA.images.float() / 255))
    return weights, distances, [record[key] for record in done.history for key in ("loss", "distance")]


def run_one(rank, world, rendezvous, function, arguments, results):
    """What a process does that torchrun has started."""
    torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(rendezvous)}
    try:
        with parallel.process_group():
            result = function(*arguments)
    except Exception as error:
        result = error
    results.put((rank, pickle.dumps(result)))  # as bytes, which outlive this process


def together(function, *arguments, world=2, answers=2):
    """Results of a function in several processes, by rank; fewer than there are processes if some are to die."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # finds a free port
    port = store.port
    del store
    processes = [
        context.Process(target=run_one, args=(rank, world, port, function, arguments, results), daemon=True)
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=60) for _ in range(answers))
    for process in processes:
        process.join(30)
    return [pickle.loads(found[rank]) for rank in sorted(found)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("loss", ["published", "cosine", "relational"])
def test_two_processes_teach_what_one_does_with_the_same_global_batch(loss, tmp_path):
    recipe = dataclasses.replace(RECIPE, loss=loss)
    alone, apart, history = learnt(recipe)
    for weights, distances, records in together(learnt, recipe, tmp_path / "run"):
        assert (distances - apart).abs().max() < 1e-4
        assert records == pytest.approx(history, rel=1e-5)
        # the bias of a unit that all images excite moves no distance: its gradient is rounding, which Adam enlarges
        assert loss == "relational" or (weights - alone).abs().max() < 1e-4
    assert (apart - learnt(dataclasses.replace(recipe, epochs=1))[1]).abs().max() > 1e-2  # there was something to learn


def test_a_run_of_one_process_is_continued_by_two(tmp_path, monkeypatch):
    whole, *_ = learnt(RECIPE)
    calls = 0

    class Killed(Exception):
        pass

    def stop(*arguments):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Killed
        return apply_views(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(learning, "apply_views", stop)
        with pytest.raises(Killed):
            learnt(RECIPE, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / "last.pt")["epoch"] == 1
    for weights, *_ in together(learnt, RECIPE, tmp_path / "run"):
        assert (weights - whole).abs().max() < 1e-4


def gathering(mine):
    rank, world = parallel.rank_and_world()
    rows = mine[rank].requires_grad_()
    everything = parallel.gathered(rows)
    everything.square().sum().backward()
    return everything.detach(), rows.grad, world


def test_gathered_rows_are_in_order_and_gradients_are_multiplied_by_the_number_of_processes():
    mine = torch.arange(8.0).reshape(2, 2, 2)
    for rank, (everything, gradient, world) in enumerate(together(gathering, mine)):
        assert torch.equal(everything, mine.reshape(4, 2)) and world == 2
        assert torch.equal(gradient, 2 * 2 * mine[rank])


def each_its_own_folder(folder):
    rank, _ = parallel.rank_and_world()
    model = nn.Linear(1, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    return train(
        model, lambda x: model(x).sum(), lambda g: [torch.ones(1, 1)], sgd, epochs=1, folder=folder / str(rank)
    )


def test_processes_that_see_different_checkpoints_are_told_so(tmp_path):
    together(each_its_own_folder, tmp_path)
    assert (tmp_path / "0" / "last.pt").exists() and not (tmp_path / "1").exists()  # only the first one writes
    _, error = together(each_its_own_folder, tmp_path)
    assert isinstance(error, TrainingError) and "another process sees another checkpoint" in str(error)


def second_one_dies():
    rows = torch.ones(1, 1)
    parallel.gathered(rows)
    if parallel.rank_and_world()[0] == 1:
        os._exit(3)
    while True:
        parallel.gathered(rows)


def test_who_loses_contact_says_so_in_one_line_at_once():
    (error,) = together(second_one_dies, answers=1)
    assert isinstance(error, parallel.ProcessError) and isinstance(error, OSError)  # which the command reports
    assert "process 0 lost the others" in str(error) and "run the same command" in str(error)
    assert "\n" not in str(error)


def test_batches_that_processes_cannot_divide_are_refused():
    for result in together(learnt, dataclasses.replace(RECIPE, batch_size=7)):
        assert isinstance(result, ValueError) and "a batch of 7 cannot be divided among 2 processes" in str(result)


def test_one_process_needs_no_group():
    with parallel.process_group():
        assert not distributed.is_initialized() and parallel.launched() == 1
    rows = torch.ones(2, 3)
    assert parallel.gathered(rows) is rows and parallel.share(rows) is not None
    assert parallel.own_device("cuda") == torch.device("cuda")


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="process 1 of this machine has no GPU, there are 1; use --nproc-per-node 1"):
        parallel.own_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parallel.own_device("cuda") == torch.device("cuda:1")


def command(folder, *launcher):
    options = ["--limit", "16", "--exam-limit", "6", "--batch-size", "8", "--epochs", "60", "--views", "plain"]
    options += ["--teacher", "colours:embed"]
    return [sys.executable, *launcher, "-m", "course_lib", "distill", *options, "--folder", str(folder)]


def test_when_a_process_dies_torchrun_ends_with_an_error_and_the_checkpoint_is_intact(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(SHARED_CACHE))  # where the triplets are already
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "colours.py").write_text("def embed(images):\n    return images.mean((2, 3))\n")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = subprocess.Popen(
        command(tmp_path / "run", *launcher), cwd=repo_root(), env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "run" / "last.pt").exists():
            assert started.poll() is None and time.monotonic() < until, started.communicate()[0]
            time.sleep(0.05)
        workers = [p for p in psutil.Process(started.pid).children(recursive=True) if "distill" in p.cmdline()]
        (second,) = (p for p in workers if p.environ().get("RANK") == "1")
        second.kill()
        killed = time.monotonic()
        started.wait(60)
        assert started.returncode != 0 and time.monotonic() - killed < 45
        assert not psutil.wait_procs(workers, timeout=10)[1]  # nobody is left waiting
    finally:
        started.kill()
    state = load_checkpoint(tmp_path / "run" / "last.pt")
    assert state["settings"]["batch_size"] == 16 and not (tmp_path / "run" / "student.pt").exists()
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"last.pt", "metrics.jsonl"}
