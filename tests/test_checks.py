"""The exercise checks: they accept what is right, name what is wrong, and disturb nothing."""

import importlib
import pkgutil

import pytest
import torch

import course_lib.checks
import tests.wrong_answers
from course_lib.checks import Mistake, exercise, expect_close, expect_shape


def modules_of(package):
    names = [found.name for found in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


CHECKS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in modules_of(course_lib.checks)
    for name, value in vars(module).items()
    if hasattr(value, "number")
}
modules_of(tests.wrong_answers)
GALLERY = tests.wrong_answers.GALLERY


def line_of(capsys, check, *answers):
    """What the check returns and the one line it prints."""
    capsys.readouterr()
    passed = check(*answers)
    out, err = capsys.readouterr()
    assert out.endswith("\n") and out.count("\n") == 1 and not err
    return passed, out.strip()


@pytest.mark.parametrize("wrong", GALLERY, ids=[wrong.name for wrong in GALLERY])
def test_wrong_answer_is_refused_with_its_own_message(wrong, capsys):
    passed, line = line_of(capsys, wrong.check, *wrong.answers)
    assert not passed
    assert line.startswith(f"✗ {wrong.check.number} {wrong.check.__name__}: ")
    assert wrong.says in line


@pytest.mark.parametrize("name", CHECKS)
def test_wrong_answers_of_one_exercise_get_different_messages(name, capsys):
    wrongs = [wrong for wrong in GALLERY if wrong.check is CHECKS[name]]
    assert wrongs, f"{name} has no wrong answers in tests/wrong_answers/"
    lines = [line_of(capsys, wrong.check, *wrong.answers)[1] for wrong in wrongs]
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize("name", CHECKS)
def test_untouched_stub_is_not_attempted(name, capsys):
    def stub(*args, **kwargs):
        raise NotImplementedError

    others = next(wrong.answers[1:] for wrong in GALLERY if wrong.check is CHECKS[name])
    passed, line = line_of(capsys, CHECKS[name], stub, *others)
    assert not passed
    assert line == f"○ {CHECKS[name].number} {CHECKS[name].__name__}: not attempted"


@pytest.mark.parametrize("name", CHECKS)
def test_check_gives_the_random_state_back(name, capsys):
    before = torch.random.get_rng_state()
    CHECKS[name](lambda *args: torch.rand(3))
    assert torch.equal(before, torch.random.get_rng_state())


def test_numbers_of_exercises_are_unique():
    numbers = [check.number for check in CHECKS.values()]
    assert len(set(numbers)) == len(numbers)


@exercise("9.9")
def doubled(attempt, random):
    x = torch.randn(4, generator=random)
    expect_close(attempt(x), 2 * x, {"you squared": x**2, "all negative": lambda y: bool((y < 0).all())})


def test_right_answer_passes(capsys):
    assert line_of(capsys, doubled, lambda x: x + x) == (True, "✓ 9.9 doubled: passed")


def test_error_in_the_learners_code_is_told_with_its_line(capsys):
    def answer(x):
        y = x.reshape(2, 2)
        return y @ torch.ones(3)

    passed, line = line_of(capsys, doubled, answer)
    assert not passed
    assert line.startswith("✗ 9.9 doubled: RuntimeError: ")
    assert line.endswith(f"(line {answer.__code__.co_firstlineno + 2} of your cell)")


def test_untouched_helper_of_an_attempt_is_named(capsys):
    def helper(x):
        raise NotImplementedError

    answers = (lambda x: helper(x), lambda x: sum(helper(row) for row in x))
    for answer in answers:
        assert line_of(capsys, doubled, answer) == (False, "○ 9.9 doubled: needs `helper`, which is still a stub")


def test_missing_feature_of_pytorch_is_not_taken_for_an_untouched_stub(capsys):
    def answer(x):
        raise NotImplementedError("'mul' not implemented for 'Byte'")

    assert "NotImplementedError: 'mul'" in line_of(capsys, doubled, answer)[1]


def test_interrupt_is_not_swallowed():
    def answer(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        doubled(answer)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda x: None, "did you forget `return`"),
        (lambda x: x.tolist(), "returns a list"),
        (lambda x: x**2, "you squared"),
        (lambda x: -x.abs() - 1, "all negative"),
        (lambda x: x[:2], "shape (2,), expected (4,)"),
        (lambda x: x * float("nan"), "NaN"),
        (lambda x: 2 * x + torch.tensor([0.0, 0, 1, 0]), "wrong value at index (2,)"),
    ],
)
def test_expect_close_names_the_problem(answer, says, capsys):
    assert says in line_of(capsys, doubled, answer)[1]


def test_expect_shape_adds_the_hint():
    with pytest.raises(Mistake, match=r"shape \(2, 1\), expected \(2,\); use squeeze"):
        expect_shape(torch.zeros(2, 1), (2,), "use squeeze")
