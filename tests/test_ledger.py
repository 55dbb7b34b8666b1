"""The numbers that the ledger quotes are measured again here."""

import json
import re

import pytest
import torch
from torch.nn import functional

from course_lib.autoencoders import DeepDense, depth_statistics, initialise
from course_lib.certification import published_counterexample
from course_lib.data import digits, photos, triplets
from course_lib.data.distortions import DISTORTIONS
from course_lib.judgments import evaluate, kendall, pearson, two_afc_score
from course_lib.lipschitz import LipSimNet, lower_bound
from course_lib.lpips import LPIPS, load_heads
from course_lib.paths import repo_root
from course_lib.perceptual_losses import FeatureLoss, ms_ssim, mse, psnr, ssim
from course_lib.start_here import LEDGER, at_equal_mse
from course_lib.trunks import Trunk
from tests.benchmarks import attack_peers, bench_attacks, bench_judgments, bench_published, bench_restoration
from tests.small_attacks import SQUARED, random_triplets


def measured(words: str) -> str:
    """What the ledger says came out for the one claim that contains `words`."""
    (claim,) = [claim for claim in LEDGER if words in claim.claim]
    return claim.measured


@pytest.fixture(scope="module")
def metric():
    return LPIPS("st-alex")


def test_ledger_counts_the_heads_right():
    counts = [sum(head.numel() for head in load_heads(net)) for net in ("alex", "vgg", "squeeze")]
    assert "{:,}, {:,} and {:,} weights".format(*counts) == measured("adds 1.6 M parameters")


def test_ledger_quotes_one_pair_at_two_sizes_right(metric):
    pair = torch.cat(photos.lpips_example()[:2])
    values = []
    for size in (64, 256):
        x, y = torch.nn.functional.interpolate(pair, size=size, mode="bilinear").chunk(2)
        values.append(metric(x, y).item())
    assert "reads {:.2f} at 64 x 64 and {:.2f} at 256 x 256".format(*values) in measured("fixed ranges")


@pytest.fixture(scope="module")
def published():
    return json.loads(bench_published.RESULT.read_text())


def test_published_results_are_those_that_the_command_measures(metric, published):
    again, stored = bench_published.measure(metric), published["st-alex"]
    assert again["shift"] == pytest.approx(stored["shift"], rel=1e-2)
    assert again["noise"] == pytest.approx(stored["noise"], rel=1e-2)
    for kind, shares in again["layer_shares"].items():
        assert shares == pytest.approx(stored["layer_shares"][kind], abs=0.01)


def test_ledger_quotes_a_shift_by_one_pixel_right(published):
    quoted = [(published[net]["shift"][1], published[net]["noise"]) for net in ("st-alex", "alex")]
    (a, b), (c, d) = quoted
    assert f"{a:.3f} and noise of no more MSE {b:.2f} (st-alex), {c:.3f} and {d:.2f} (published" in measured(
        "pixel shifts"
    )


def test_ledger_names_the_layers_that_see_a_blur_right(published):
    blur = [published[net]["layer_shares"]["gaussian_blur"] for net in ("st-alex", "alex")]
    last, second = (shares.index(max(shares)) + 1 for shares in blur)
    assert f"layer {last} (st-alex) or in layer {second} (published" in measured("Early layers")


def test_ledger_counts_the_broken_triangles_right(metric):
    crops = photos.crops("test", 16, seed=7).images.float() / 255
    step, far = (DISTORTIONS["gaussian_blur"](crops, strength) for strength in (0.25, 0.5))
    a, b, direct = metric(crops, step), metric(step, far), metric(crops, far)
    broken = int((direct > a + b).sum())
    assert f"fails for {broken} of 16 crops" in measured("L2 distance")
    assert (direct.sqrt() <= a.sqrt() + b.sqrt() + 1e-6).all()


def damage(name):
    """The distortion with the same random choices at every strength."""
    return lambda images, strength: DISTORTIONS[name](images, strength, torch.Generator().manual_seed(0))


def test_ledger_spreads_five_pictures_of_one_mse_right():
    photo = photos.single("astronaut")[..., 0:192, 130:322]
    kinds = ("lightness", "shift", "jpeg", "gaussian_blur", "white_noise")
    five = torch.cat(at_equal_mse(photo, *map(damage, kinds), mse=0.0035))
    same = photo.expand_as(five)
    decibels, dissimilar = psnr(same, five), 1 - ssim(same, five)
    assert decibels.max() - decibels.min() < 1e-3
    assert f"differs by a factor of {dissimilar.max() / dissimilar.min():.0f}" in measured("metrics of one kind")


def test_ledger_divides_the_claimed_correlations_right():
    text = measured("2-3 times")
    (low, high), *others = [(float(a), float(b)) for a, b in re.findall(r"(0\.\d+)-(0\.\d+)", text)]
    times = [f"{low / their_high:.1f}-{high / their_low:.1f}" for their_low, their_high in others]
    assert len(times) == 2 and times[0] != times[1]
    assert text.endswith("is {} or {} times".format(*times))


def share_of_the_way(own, moved):
    """Squared distance of each point (n, d) to where it went, in % of that to the median other point; the median."""
    pairs = (own[:, None] - own).square().sum(2)
    to_others = pairs[~torch.eye(len(own), dtype=torch.bool)].view(len(own), -1).median(1).values
    return 100 * ((moved - own).square().sum(1) / to_others).median().item()


def test_ledger_says_right_which_layers_see_colour_and_arrangement():
    crops = photos.crops("all", 48, seed=5).images.float() / 255
    names = ("colour_shift", "shift", "gaussian_blur", "jpeg", "white_noise", "checkerboard")
    reach = torch.stack([mse(crops, damage(name)(crops, 1.0)) for name in names])
    chosen = crops[(reach > 0.0015).all(0)][:16]
    (cast,) = at_equal_mse(chosen, damage("colour_shift"), mse=0.0015)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    blocks = crops[:24].unfold(2, 16, 16).unfold(3, 16, 16).flatten(2, 3)[:, :, order]
    cut = blocks.unflatten(2, (4, 4)).permute(0, 1, 2, 4, 3, 5).reshape(24, 3, 64, 64)
    colour, arrangement = {}, {}
    for net in ("st-alex", "st-vgg"):
        a, b, c, d = (list(Trunk(net)(images).values()) for images in (chosen, cast, crops[:24], cut))
        colour[net] = [share_of_the_way(x.flatten(1), y.flatten(1)) for x, y in zip(a, b, strict=True)]
        arrangement[net] = [share_of_the_way(x.mean((2, 3)), y.mean((2, 3))) for x, y in zip(c, d, strict=True)]
    text = measured("Colour is seen by the first layers")
    first, *_, last = colour["st-alex"]
    assert f"first layer by {first:.1f} % of the way to another crop, its last by {last:.1f} %" in text
    assert f"layer {colour['st-vgg'].index(max(colour['st-vgg'])) + 1} of st-vgg most" in text
    ends = [shares[i] for i in (0, -1) for shares in arrangement.values()]
    assert "first layers by {:.0f} and {:.0f} %, the last by {:.0f} and {:.0f} %".format(*ends) in text


def test_ledger_counts_the_moved_crops_that_lose_to_a_blur_right():
    wide = photos.crops("test", 12, size=208, seed=3).images.float() / 255
    changes = (wide, wide.roll(2, dims=3), DISTORTIONS["gaussian_blur"](wide, 0.5))
    crops, moved, blurred = (images[..., 16:-16, 16:-16] for images in changes)
    pixels = [mse, lambda x, y: -ssim(x, y), lambda x, y: -ms_ssim(x, y)]
    features = [FeatureLoss(Trunk("st-alex"), ["relu3"]), FeatureLoss(Trunk("st-vgg"), ["relu3_3"])]
    counts = [{int((d(crops, blurred) < d(crops, moved)).sum()) for d in kind} for kind in (pixels, features)]
    (by_pixels,), (by_features,) = counts
    text = measured("geometric transformations")
    assert f"{by_pixels} of 12 times, features" in text and f"nets {by_features} of 12 times" in text


def test_ledger_quotes_agreement_and_correlations_right():
    everything = triplets.simulated("all")
    few = everything.select(torch.arange(220) * len(everything) // 220)
    quoted = {}
    for name in ("lpips-st-alex", "l2"):
        d0, d1 = evaluate(name, few).distances
        values = [two_afc_score(d0, d1, few.judge), *(r(d0 - d1, few.judge) for r in (pearson, kendall))]
        quoted[name] = [f"{value:.2f}" for value in values]
    text = measured("0.75-0.85 correlation")
    assert "st-alex 2AFC {}, Pearson {}, Kendall {};".format(*quoted["lpips-st-alex"]) in text
    assert "pixel L2 {}, {}, {};".format(*quoted["l2"]) in text


@pytest.fixture(scope="module")
def judged():
    return json.loads(bench_judgments.RESULT.read_text())


def test_ledger_quotes_the_learning_curves_right(judged):
    heads = {int(n): f"{score:.3f}" for n, score in judged["curves"]["lin"].items()}
    scratch = {n: f"{judged[f'scratch {n}']['test']:.3f}" for n in (1000, 8000)}
    data, modes = measured("10k-100k"), measured("Linear training")
    assert f"{heads[50]} with 50 triplets, {heads[1000]} with 1,000 and {heads[8000]} with 8,000" in data
    assert f"{scratch[1000]} with 1,000 and {scratch[8000]} with 8,000" in data
    assert f"with 8,000 triplets linear {heads[8000]}, scratch {scratch[8000]} (simulated" in modes


def test_ledger_quotes_the_decisions_left_by_attacks_right():
    result = json.loads(bench_attacks.RESULT.read_text())
    left = [min(row["standing"] for row in result["l2"][eps].values()) for eps in ("0.5", "1", "2")]
    text = "of {} decisions that agree with the simulated majority at most {}, {} and {} stand at L2 0.5, 1 and 2"
    text = text.format(result["images"], *left)
    assert result["metric"] == "lpips-st-alex" and text in measured("vulnerable")


def test_ledger_names_what_stops_autoattack_right():
    ref, p0, p1, _ = random_triplets(2)[:]
    decision, runs = attack_peers.Decision(SQUARED, ref, p0, p1), []
    for attack in ("apgd-ce", "apgd-dlr", "fab", "square"):
        try:
            peer = attack_peers.autoattack(decision, "l2", 0.01, version="custom", attacks=[attack])
            peer.run_standard_evaluation(ref, decision(ref).argmax(1))
            runs.append(attack)
        except IndexError:
            continue
    assert runs == ["apgd-ce", "fab", "square"] and "stops with an IndexError: its targeted DLR" in measured(
        "with AutoAttack"
    )


def test_ledger_bounds_lipsim_right():
    torch.manual_seed(0)
    bound = LipSimNet.preset("tiny").eval().upper_bound()
    assert f"tiny is bounded from above by {bound:.5f}" in measured("LipSim's backbone")


def test_ledger_counts_how_fast_an_embedding_of_length_one_moves_right():
    torch.manual_seed(0)
    tiny = LipSimNet.preset("tiny").eval().requires_grad_(False)
    dark = 0.03 * photos.crops("test", 16, seed=7).images[:4].float() / 255

    def on_the_sphere(x):
        return functional.normalize(tiny(x))

    def in_the_ball(x):
        return tiny(x) / tiny(x).norm(dim=1, keepdim=True).clamp_min(1)

    sphere, ball = (lower_bound(f, dark, steps=6, search=0) for f in (on_the_sphere, in_the_ball))
    text = measured("with projection")
    assert f"moves {sphere:.1f} times as fast" in text and f"leaves short ones alone, {ball:.1f} times" in text


@pytest.fixture(scope="module")
def distilled():
    """Row -> numbers of the table in chapter 11, section 4: far, near, same decision, agreement, mean distance."""
    notebook = json.loads((repo_root() / "notebooks/11_distillation.ipynb").read_text())
    printed = ["".join(out.get("text", "")) for cell in notebook["cells"] for out in cell.get("outputs", [])]
    (table,) = [text for text in printed if "same decision" in text and "96 steps" in text]
    rows = (re.match(r"(.+?)\s{2,}(-?\d.*)", line) for line in table.splitlines())
    return {row[1]: [float(number) for number in row[2].split()] for row in rows if row}


def test_ledger_quotes_distillation_beside_self_supervision_right(distilled):
    near = [distilled[name][1] for name in ("pixel L2", "untrained", "32 steps", "96 steps", "without a teacher")]
    words = "pixels {:.2f}, untrained {:.2f}, 32 steps of distillation {:.2f} (96: {:.2f}), 32 steps of SimCLR {:.2f}"
    assert words.format(*near) in measured("avoid self-supervised")
    assert near[4] < near[0] < near[2] < near[3]


def test_ledger_quotes_learning_without_labels_right(distilled):
    before, after = (distilled[name][2] for name in ("untrained", "96 steps"))
    assert before < after and f"from {before:.2f} to {after:.2f} of 200" in measured("1-Lipschitz classifier")


def test_ledger_quotes_the_counterexample_to_the_published_certificate_right():
    found = published_counterexample()
    length = found.e_ref.norm()
    said = f"where that is {length:.1f} it claims {found.claimed:.2f}, and the decision flips at {found.true:.2f}"
    assert said in measured("certificates for all perturbations")
    near, far = (functional.cosine_similarity(found.e_moved, e) for e in (found.e_p0, found.e_p1))
    assert near < far and (found.e_moved - found.e_ref).norm() < found.claimed


def test_ledger_quotes_small_and_large_margins_right():
    rows = json.loads((repo_root() / "tests/benchmarks/certification.json").read_text())["margins"]["rows"]
    small, large = (rows[margin]["scores"]["st-alex"] for margin in ("0.5", "8"))
    said = measured("A higher margin")
    quotes = {"natural": "natural {} against {} %", "36/255": "{} against {} %, at 2", "2": "at 2 {} against {} %"}
    for key, words in quotes.items():
        assert words.format(*(f"{100 * row[key]:.0f}" for row in (small, large))) in said
    assert small["natural"] > large["natural"] and small["2"] < large["2"]


def printed(section: int) -> str:
    """What one cell of chapter 01's notebook, as it is stored, prints."""
    notebook = json.loads((repo_root() / "notebooks/01_autoencoders.ipynb").read_text())
    (cell,) = [cell for cell in notebook["cells"] if cell["id"] == f"autoencoders-{section:03d}"]
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


def numbers(text: str, after: str) -> list[str]:
    """The numbers that stand in `text` after a word, up to the end of that line."""
    return re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text.split(after, 1)[1].splitlines()[0])


def test_ledger_says_right_where_the_copier_copies():
    used, other = numbers(printed(20), "pixels are used:")
    said = f"{used} of a small noise on the pixels that digits use, {other} on the others"
    assert said in measured("trivial identity")


def test_ledger_quotes_dropout_between_layers_right():
    none, tenth = numbers(printed(46), "{")[1:4:2]  # of {0.0: a, 0.1: b, ...}
    train, test = numbers(printed(46), "without dropout:")
    text = measured("dropout between layers")
    assert f"explained variance from {none} to {tenth}," in text and f"({train} of training, {test} of test" in text


def test_ledger_quotes_batch_normalisation_right():
    slow, fast = printed(44).split("learning rate 0.01 ")
    text = measured("Batch normalisation")
    for part, rate in ((fast, "a rate of 0.01"), (slow, "0.001")):
        assert "from {} to {} at ".format(*numbers(part, " he")) + rate in text


def test_ledger_quotes_the_best_rate_of_adam_right():
    best, rate, low = numbers(printed(54), "Adam ")
    assert f"best at {float(rate):g} ({best}; at 0.001 {low})" in measured("lr = 1e-3 to 1e-4")


def test_ledger_quotes_the_erased_and_the_noisy_digits_right():
    rows = {name: numbers(printed(32), f"{name} ") for name in ("none", "denoising")}
    (before,) = numbers(printed(32), "themselves:")
    text = measured("Denoising learns robust")
    assert f"from {before} to {rows['denoising'][2]} (plain: {rows['none'][2]})" in text
    assert f"{rows['denoising'][1]} of noisy digits by their codes, {rows['none'][1]} by plain" in text


def test_ledger_measures_how_much_signal_xavier_keeps_right():
    images = digits.load("train")[0][:256].float() / 255
    kept = []
    for activation in ("tanh", "sigmoid"):
        deep = DeepDense((256,) * 8 + (32,), activation)
        initialise(deep, "xavier", torch.Generator().manual_seed(0))
        signal = depth_statistics(deep, images).signal_std
        kept.append(signal[15] / signal[0])
    tanh, sigmoid = kept
    text = measured("Xavier is for sigmoid")
    assert f"leave {tanh:.1f} of the signal, sixteen of sigmoids {sigmoid:.0e}".replace("e-0", "e-") in text


def test_ledger_quotes_restoration_right():
    parts = json.loads(bench_restoration.RESULT.read_text())
    ours = {name: next(iter(parts[name]["measured"].values()))["ours"] for name in bench_restoration.PARTS}
    keys = ("psnr", "lpips st-alex", "lpips st-vgg")
    psnr, alex, vgg = ({name: row[key] for name, row in ours.items()} for key in keys)
    skips = f"PSNR {psnr['gaussian']:.1f} with skips and residual, {psnr['gaussian-no-skip']:.1f} with"
    assert skips in measured("skip connections")
    less = measured("less blurry")
    assert f"{alex['sr4-l1']:.3f} with L1, " in less and f" {alex['sr4-l2']:.3f} with L2" in less
    falls = f"from {alex['sr4-l1']:.3f} to {alex['sr4-lpips']:.3f} (st-vgg, not trained on: {vgg['sr4-l1']:.3f} to "
    falls += f"{vgg['sr4-lpips']:.3f}), and so does PSNR, from {psnr['sr4-l1']:.1f} to {psnr['sr4-lpips']:.1f}"
    assert falls in measured("perceptual loss preserves")
    losses = [name for name in ours if name.startswith("sr4-")]
    assert min(losses, key=alex.get) == min(losses, key=psnr.get) == "sr4-adversarial" and len(losses) == 5
    best = f"best by LPIPS ({alex['sr4-adversarial']:.3f} of five losses), worst by PSNR "
    assert best + f"({psnr['sr4-adversarial']:.1f})" in measured("weighted sum")
