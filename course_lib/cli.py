"""The course's commands: ``python -m course_lib --help`` lists them.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Commands of the course. Each has a working example: python -m course_lib COMMAND --help",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip


class _SeveralValues(typer.core.TyperCommand):
    """A command whose option --eps may be followed by several values, as in ``--eps 0.5 1 2``, and may be repeated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write the option's name before each of its values."""
        written: list[str] = []
        values = 0  # of the option --eps so far; -1 elsewhere
        for word in args:
            if word.startswith("--"):
                values = 0 if word.partition("=")[0] == "--eps" else -1
                values += "=" in word
            elif values >= 0:
                written += ["--eps"] * (values > 0)
                values += 1
            written.append(word)
        return super().parse_args(ctx, written)


@app.callback()
def course() -> None:
    """Keep commands as subcommands while there is only one."""


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of lines.")] = False,
) -> None:
    """Check that everything the course needs is here: one line each, with the fix where something is missing.

    Exits with 1 if something is missing. Example: python -m course_lib doctor
    """
    from course_lib.start_here import doctor as examine

    findings = examine()
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        print(*findings, sep="\n")
    failed = sum(finding.status == "FAIL" for finding in findings)
    if failed:
        print(f"error: {failed} of {len(findings)} checks failed", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def lpips(
    a: Annotated[Path, typer.Argument(help="A picture, or a folder of pictures.", show_default=False)],
    b: Annotated[Path | None, typer.Argument(help="What to compare it with.", show_default=False)] = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Compare all pictures in folder A.")] = False,
    net: Annotated[str, typer.Option(help="st-alex, st-vgg (offline), alex, vgg or squeeze (downloaded).")] = "st-alex",
    output: Annotated[Path | None, typer.Option(help="Also write a .json or .csv file.", show_default=False)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs at a time.")] = 16,
) -> None:
    """LPIPS distances: of two pictures, of two folders whose files share names, or of all pairs in a folder.

    The two pictures of a pair must have one size. Names are matched without extensions, so x.png and x.jpg are a
    pair; hidden files and subfolders are left out. EXIF orientation is applied, grey and palette pictures become RGB,
    colour profiles are ignored, transparent pictures are refused.

    What cannot be compared is named on stderr, and the rest is compared; the exit code is then 1.

    \b
    Example, in the folder of the course:
    python -m course_lib lpips course_lib/data/lpips_example/ex_ref.png course_lib/data/lpips_example/ex_p0.png
    """  # noqa: D301
    from course_lib.comparison import compare

    if output and output.suffix not in (".json", ".csv"):
        raise ValueError(f"{output} ends in neither .json nor .csv; rename it")
    comparison = compare(a, b, all_pairs=all_pairs, net=net, batch_size=batch_size)
    print(f"LPIPS, net {net}: {comparison.weights}", file=sys.stderr)
    if comparison.results:
        print(comparison.table().to_string(index=False, float_format="{:.4f}".format))
        if output:
            comparison.write(output)
    for problem in comparison.problems:
        print(f"error: {problem}", file=sys.stderr)
    if comparison.problems or not comparison.results:
        counts = f"{len(comparison.results)} pairs compared, {len(comparison.problems)} problems"
        print(f"error: {counts}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def fetch(
    dataset: Annotated[str, typer.Argument(help="bapps, bapps-val, bapps-jnd or nights.", show_default=False)],
    data_dir: Annotated[Path, typer.Option(help="Where data sets live; is created.", show_default=False)],
    url: Annotated[
        str | None,
        typer.Option(help="An archive, or a folder of them: an address or a path on this machine.", show_default=False),
    ] = None,
    sha256: Annotated[
        list[str] | None,
        typer.Option(help="What the SHA-256 must be; give it once for each archive.", show_default=False),
    ] = None,
    any_count: Annotated[bool, typer.Option("--any-count", help="Accept another number of files.")] = False,
) -> None:
    """Download human judgments and unpack them; an interrupted download goes on where it stopped.

    bapps is everything (6.6 GB): 2AFC train (5.3 GB), 2AFC val (1.1 GB) and JND (0.2 GB); bapps-val is 2AFC val and
    JND; nights is NIGHTS (58 GB). What is complete already stays as it is.

    \b
    Example: python -m course_lib fetch bapps-val --data-dir datasets
    With an archive from elsewhere: python -m course_lib fetch nights --data-dir datasets --url nights.zip
    """  # noqa: D301
    from course_lib.data.fetch import fetch as fetch_dataset

    fetch_dataset(dataset, data_dir, url=url, sha256=sha256 or (), any_count=any_count)


@app.command()
def evaluate(
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="May be repeated: l2, psnr, ssim, ms-ssim, lpips-NET, lpips-NET-uncalibrated, "
            "lpips-NET-random, a metric.pt, a certified metric.safetensors, or module:function.",
            show_default="l2 ssim lpips-st-alex",
        ),
    ] = None,
    dataset: Annotated[str, typer.Option(help="simulated, bapps, nights, materials or folder.")] = "simulated",
    data_dir: Annotated[Path | None, typer.Option(help="Where the data lies.", show_default=False)] = None,
    split: Annotated[str | None, typer.Option(help="Part of the data set.", show_default="its test split")] = None,
    jnd: Annotated[bool, typer.Option("--jnd", help="Score same-or-different judgments instead of 2AFC.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only so many, spread evenly over the data.", show_default=False)
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write a .json or .csv file.", show_default=False)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Triplets at a time.")] = 50,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Score metrics against judgments: one row per metric and part of the data, with 95 % bootstrap intervals.

    2AFC: the share of votes that a metric agrees with, beside the scores of one random person (human) and of the
    majority, which is the most that any metric can reach. With --jnd: mean average precision.

    \b
    Examples:
    python -m course_lib evaluate --metric l2 --metric lpips-st-alex --limit 200
    python -m course_lib evaluate --metric numpy_metrics:my_distance --dataset bapps --data-dir data
    """  # noqa: D301
    import pandas as pd

    from course_lib import judgments
    from course_lib.data import sources

    if output and output.suffix not in (".json", ".csv"):
        raise ValueError(f"{output} ends in neither .json nor .csv; rename it")
    _check_device(device)
    metrics = [_load_metric(name, device) for name in metric or ("l2", "ssim", "lpips-st-alex")]
    data = _spread((sources.open_pairs if jnd else sources.open_triplets)(dataset, data_dir, split), limit)
    print(f"{data.name}: {len(data)} {'pairs' if jnd else 'triplets'}", file=sys.stderr)
    tables = []
    for measure in metrics:
        evaluation = judgments.evaluate(measure, data, batch_size=batch_size, device=device, progress=True)
        tables.append(evaluation.table())
    table = pd.concat(tables, ignore_index=True)
    print(table.drop(columns="data").to_string(index=False, float_format="{:.3f}".format))
    if output:
        judgments.write_tables(output, table, {"data": data.name, "kind": "jnd" if jnd else "2afc"})


@app.command(cls=_SeveralValues)
def attack(
    eps: Annotated[list[str], typer.Option(help="Radii: --eps 0.5 1 2, or --eps 2/255 8/255.", show_default=False)],
    metric: Annotated[str, typer.Option(help="As evaluate takes it.")] = "lpips-st-alex",
    name: Annotated[
        str,
        typer.Option(
            "--attack",
            help="fgm, pgd, momentum, apgd-margin, apgd-ce, fab, square, carlini-wagner, deepfool, ddn, worst-case; or "
            "as LipSim has it: AA-L2, PGD-Linf, CW-L2, MIFGSM-Linf.",
        ),
    ] = "worst-case",
    norm: Annotated[
        str | None, typer.Option(help="l2 or linf.", show_default="that of the attack's name, or l2")
    ] = None,
    mode: Annotated[str, typer.Option(help="2afc: overturn decisions; distance: push d(x, x + change) up.")] = "2afc",
    dataset: Annotated[str, typer.Option(help="simulated, bapps, nights, materials or folder.")] = "simulated",
    data_dir: Annotated[Path | None, typer.Option(help="Where the data lies.", show_default=False)] = None,
    split: Annotated[str | None, typer.Option(help="Part of the data set.", show_default="its test split")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only so many, spread evenly over the data.", show_default=False)
    ] = None,
    perturb: Annotated[str, typer.Option(help="What is changed: ref, p0, p1 or all. 2afc only.")] = "ref",
    steps: Annotated[int | None, typer.Option(help="Gradients per image.", show_default="the attack's")] = None,
    restarts: Annotated[int | None, typer.Option(help="Random starts.", show_default="the attack's")] = None,
    queries: Annotated[
        int | None, typer.Option(help="Of square, also inside worst-case.", show_default="the attack's")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write a .json or .csv file.", show_default=False)] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Keep finished batches there; the same command goes on.", show_default=False),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Triplets at a time.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the random numbers.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Attack a metric: what is left of its 2AFC score, or how far it can be pushed, one row for each eps.

    An attack bounds robust accuracy from above: what stands has not been overturned by this attack, no more. eps is
    in pixel values from 0 to 1; for l2 summed over the whole image.

    With --folder an interrupted command loses at most one batch. The JSON of --mode distance holds every distance.

    \b
    Example, under a minute:
    python -m course_lib attack --attack apgd-margin --norm l2 --eps 0.5 1 2 --steps 10 --limit 16
    The strongest, up to a minute per 16 triplets and eps on 2 cores:
    python -m course_lib attack --metric lpips-st-alex --attack worst-case --norm l2 --eps 0.5 1 2 3 --folder runs/aa
    """  # noqa: D301
    from course_lib import judgments
    from course_lib.attacks.evaluation import attack_2afc, attack_distance
    from course_lib.attacks.names import named
    from course_lib.data import sources

    if output and output.suffix not in (".json", ".csv"):
        raise ValueError(f"{output} ends in neither .json nor .csv; rename it")
    if mode not in ("2afc", "distance"):
        raise ValueError(f"unknown mode {mode!r}; choose 2afc or distance")
    radii = [_number(radius) for radius in eps]
    chosen = named(name, norm)
    _check_device(device)
    measure = _load_metric(metric, device)
    data = _spread(sources.open_triplets(dataset, data_dir, split), limit)
    print(f"{data.name}: {len(data)} triplets", file=sys.stderr)
    print(f"{measure.name}: {_weights(measure)}; attack {chosen.name}, {chosen.norm}", file=sys.stderr)
    options = {"steps": steps, "restarts": restarts, "queries": queries}
    shared: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    shared |= {"eps": radii, "attack": name, "norm": norm, "batch_size": batch_size, "seed": seed, "device": device}
    shared |= {"folder": folder, "progress": True}
    result: Any
    if mode == "2afc":
        result = attack_2afc(measure, data, perturb=perturb, **shared)
    else:
        result = attack_distance(measure, data, **shared)
    table = result.table()
    constant = ["metric", "data", "attack", "norm", "perturb"]
    print(table.drop(columns=constant, errors="ignore").to_string(index=False, float_format="{:.4g}".format))
    if output:
        about: dict[str, Any] = {"mode": mode, "data": data.name, "options": options, "seed": seed}
        if mode == "distance":
            about["distances"] = dict(zip(map(str, result.eps), result.distances.tolist(), strict=True))
        judgments.write_tables(output, table, about)


@app.command()
def train_lpips(
    folder: Annotated[Path, typer.Argument(help="Receives metric.pt, checkpoints and metrics.", show_default=False)],
    mode: Annotated[str, typer.Option(help="lin: heads only; tune: trunk as well; scratch: all anew.")] = "lin",
    net: Annotated[str, typer.Option(help="st-alex, st-vgg (offline), alex, vgg or squeeze (downloaded).")] = "st-alex",
    dataset: Annotated[str, typer.Option(help="simulated, bapps, nights, materials or folder.")] = "simulated",
    data_dir: Annotated[Path | None, typer.Option(help="Where the data lies.", show_default=False)] = None,
    split: Annotated[str, typer.Option(help="What to learn from.")] = "train",
    val_split: Annotated[str | None, typer.Option(help="What to score after every epoch.", show_default=False)] = "val",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only so many, spread evenly over the data.", show_default=False)
    ] = None,
    ranking: Annotated[str, typer.Option(help="network (published) or sigmoid of the difference.")] = "network",
    dropout: Annotated[str, typer.Option(help="channel, element (published; slow) or none.")] = "channel",
    learning_rate: Annotated[float, typer.Option(help="Of Adam; a small data set wants more, such as 1e-2.")] = 1e-4,
    trunk_learning_rate: Annotated[
        float | None, typer.Option(help="For tune and scratch.", show_default="the same")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Triplets per step.")] = 50,
    epochs: Annotated[int, typer.Option(min=0, help="At this learning rate.")] = 5,
    decay_epochs: Annotated[int, typer.Option(min=0, help="More, falling to 0.")] = 5,
    seed: Annotated[int, typer.Option(help="Of weights, order and dropout.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Train LPIPS on judgments; the same command continues a run that was interrupted.

    "lin" sends every image through the trunk once, keeps the channel differences in FOLDER, and then trains in
    seconds. Score the result with: python -m course_lib evaluate --metric FOLDER/metric.pt

    \b
    Example, half a minute:
    python -m course_lib train-lpips runs/lin --learning-rate 1e-2 --limit 500
    """  # noqa: D301
    from course_lib import judgments
    from course_lib.data import sources

    _check_device(device)
    recipe = judgments.Recipe(
        learning_rate, batch_size, epochs, decay_epochs, ranking, dropout, seed, trunk_learning_rate
    )
    splits: tuple[str | None, ...] = (split, val_split) if val_split else (split,)
    if dataset == "folder":
        splits = (None,)
    data, *val = (_spread(sources.open_triplets(dataset, data_dir, name), limit) for name in splits)
    print(f"training {net}, mode {mode}, on {len(data)} triplets of {data.name}", file=sys.stderr)
    trained = judgments.train_lpips(
        mode, data, val=val[0] if val else None, net=net, recipe=recipe, fast=dropout != "element", folder=folder,
        device=device, progress=True,
    )  # fmt: skip
    print(*(" ".join(f"{key} {value:.4g}" for key, value in record.items()) for record in trained.history), sep="\n")
    print(f"the metric is in {folder / 'metric.pt'}", file=sys.stderr)


@app.command()
def distill(
    folder: Annotated[
        Path | None,
        typer.Option(help="Receives student.pt, checkpoints, metrics.", show_default="runs/STUDENT-TEACHER-DATASET"),
    ] = None,
    dataset: Annotated[str, typer.Option(help="embedded, imagenet, tiny-imagenet or folder.")] = "embedded",
    data_dir: Annotated[Path | None, typer.Option(help="Where the pictures lie.", show_default=False)] = None,
    teacher: Annotated[
        str,
        typer.Option(
            help="st-alex, st-vgg, efficientnet-lite0, ensemble, dreamsim-ensemble, dreamsim-dino_vitb16, "
            "dreamsim-clip_vitb32, dreamsim-open_clip_vitb32, several joined by +, or module:callable."
        ),
    ] = "st-alex",
    dim: Annotated[
        int | None, typer.Option(min=1, help="Reduce the teacher to so many numbers.", show_default="512 for st-*")
    ] = None,
    student: Annotated[str, typer.Option(help="tiny (64 x 64 pixels); small, medium, large or xlarge (224).")] = "tiny",
    recipe: Annotated[
        str | None,
        typer.Option(help="published or laptop; what follows changes it.", show_default="laptop for embedded"),
    ] = None,
    loss: Annotated[str | None, typer.Option(help="published, cosine or relational.", show_default=False)] = None,
    scale: Annotated[float | None, typer.Option(help="Of the teacher's embedding.", show_default=False)] = None,
    views: Annotated[str | None, typer.Option(help="published, flip or plain.", show_default=False)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.", show_default=False)] = None,
    epochs: Annotated[int | None, typer.Option(help="How often each image is seen.", show_default=False)] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per step of *each* process.", show_default=False)
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of a gradient.", show_default=False)] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and views.", show_default=False)] = None,
    resize: Annotated[
        int | None, typer.Option(help="Bring shorter sides to so many pixels before cropping.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Use only so many images.", show_default=False)] = None,
    exam_limit: Annotated[int, typer.Option(min=3, help="Held-out images, and triplets, for the scores.")] = 400,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures, for each GPU.")] = 0,
    checkpoint_steps: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
) -> None:
    """Teach a 1-Lipschitz network a teacher's embedding; the same command continues a run that was interrupted.

    The teacher embeds all images once, into the cache. After every epoch the student is scored on held-out
    photographs and on simulated judgments, at the end beside pixel L2, an untrained student and the teacher.

    With torchrun, all processes share every batch: of 16 with --batch-size 32 it has 512 images, as published. The
    number of processes changes how fast a student learns, not what.

    \b
    Examples, the first one about ten minutes on two cores:
    python -m course_lib distill --dataset embedded --teacher st-alex --student tiny
    torchrun --nproc-per-node 4 -m course_lib distill --dataset imagenet --data-dir DIR --teacher dreamsim-ensemble
    --student small --epochs 40 --batch-size 32 --workers 8 --device cuda
    """  # noqa: D301
    from course_lib.distillation import command, parallel

    own_device = str(parallel.own_device(device))
    _check_device(own_device)
    changes = {
        "loss": loss, "scale": scale, "views": views, "learning_rate": learning_rate, "epochs": epochs, "clip": clip,
        "precision": precision, "seed": seed, "batch_size": batch_size and batch_size * parallel.launched(),
    }  # fmt: skip
    command.run(
        dataset, data_dir, teacher, student, command.changed(recipe, dataset, changes), dim=dim, folder=folder,
        resize=resize, limit=limit, exam_limit=exam_limit, workers=workers, checkpoint_steps=checkpoint_steps,
        device=own_device,
    )  # fmt: skip


@app.command(cls=_SeveralValues)
def certify(
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="A metric's .safetensors or .json, a student.pt of distill, or l2.", show_default="that of the course"
        ),
    ] = None,
    eps: Annotated[
        list[str] | None,
        typer.Option(help="L2 radii: --eps 0.5 1 2, or --eps 36/255.", show_default="36/255 72/255 108/255"),
    ] = None,
    formula: Annotated[
        str, typer.Option(help="exact; or published, which is wrong where |f(ref)| < 1, for cosine metrics.")
    ] = "exact",
    labels: Annotated[
        str, typer.Option(help="Right answers: votes, or a metric that decides, such as lpips-st-alex.")
    ] = "votes",
    attack: Annotated[
        bool, typer.Option("--attack", help="Also run worst-case at the same radii, and hold it against the result.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Gradients per image, of each attack.")] = 100,
    queries: Annotated[int, typer.Option(min=1, help="Of square, inside worst-case.")] = 1000,
    folder: Annotated[
        Path | None, typer.Option(help="Keep finished batches of the attack there.", show_default=False)
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="cosine or euclidean, for a student.pt.", show_default="euclidean")
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="embedded (simulated votes), bapps, nights, materials or folder.")
    ] = "embedded",
    data_dir: Annotated[Path | None, typer.Option(help="Where the data lies.", show_default=False)] = None,
    split: Annotated[str | None, typer.Option(help="Part of the data set.", show_default="its test split")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only so many, spread evenly over the data.", show_default=False)
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write a .json or .csv file.", show_default=False)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Triplets at a time; 16 for the attack.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the attack's random numbers.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Certified 2AFC accuracy: decisions that are right and that no L2 change of the reference up to eps can alter.

    One row for the images as they are (eps 0) and one for each eps, with 95 % bootstrap intervals. eps is in pixel
    values from 0 to 1, summed over the whole image. score counts all votes: what is certain to be left of the 2AFC
    score. With --attack, certified <= attacked <= natural is checked for every triplet; if it fails, the command names
    the triplet and exits with 1.

    With torchrun, the processes share the triplets.

    \b
    Examples, the first one a few seconds:
    python -m course_lib certify --checkpoint l2 --limit 200 --eps 36/255 72/255 108/255
    python -m course_lib certify --labels lpips-st-alex --attack --limit 64 --output certified.json
    torchrun --nproc-per-node 4 -m course_lib certify --dataset nights --data-dir DIR --checkpoint metric.safetensors
    """  # noqa: D301
    from course_lib.certification import EPS, command
    from course_lib.certification import labels as decided
    from course_lib.data import sources
    from course_lib.distillation import parallel

    if output and output.suffix not in (".json", ".csv"):
        raise ValueError(f"{output} ends in neither .json nor .csv; rename it")
    own_device = str(parallel.own_device(device))
    _check_device(own_device)
    radii = [_number(radius) for radius in eps] if eps else list(EPS)
    dataset = "simulated" if dataset == "embedded" else dataset
    if (dataset, data_dir, labels) == ("simulated", None, decided.TEACHER):
        everything: Any = decided.simulated(split or "test")  # whose distances come with the course
    else:
        everything = sources.open_triplets(dataset, data_dir, split)
    data = _spread(everything, limit)
    options = {"steps": steps, "queries": queries, "folder": folder, "seed": seed} if attack else None
    command.run(
        checkpoint, data, radii, kind=kind, formula=formula, labels=labels, attack=options, output=output,
        batch_size=batch_size, device=own_device,
    )  # fmt: skip


@app.command()
def finetune(
    folder: Annotated[
        Path | None, typer.Option(help="Receives the metric, checkpoints.", show_default="runs/finetuned-NETWORK")
    ] = None,
    network: Annotated[
        str,
        typer.Option(
            help="Where to start: untrained scattering, scattering-sll, tiny (64 x 64), small, ... (224); a "
            "student.pt of distill; a metric's .safetensors."
        ),
    ] = "scattering",
    recipe: Annotated[
        str, typer.Option(help="radius (ours) or published (LipSim's hinge); what follows changes it.")
    ] = "radius",
    loss: Annotated[str | None, typer.Option(help="radius or hinge.", show_default=False)] = None,
    kind: Annotated[str | None, typer.Option(help="euclidean or cosine.", show_default=False)] = None,
    margin: Annotated[
        list[float] | None, typer.Option(help="May be repeated: the mean over all is taken.", show_default=False)
    ] = None,
    labels: Annotated[
        str, typer.Option(help="What is learnt: votes, or the decisions of a metric such as lpips-st-alex.")
    ] = "votes",
    fresh: Annotated[
        int, typer.Option(min=0, help="Make so many times 500 more embedded triplets, with --labels METRIC.")
    ] = 0,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.", show_default=False)] = None,
    epochs: Annotated[int | None, typer.Option(help="How often each triplet is seen.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Triplets per step.", show_default=False)] = None,
    average: Annotated[
        float | None, typer.Option(help="Share that a moving average of the weights keeps.", show_default=False)
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and mirroring.", show_default=False)] = None,
    dataset: Annotated[
        str, typer.Option(help="embedded (simulated votes), bapps, nights, materials or folder.")
    ] = "embedded",
    data_dir: Annotated[Path | None, typer.Option(help="Where the data lies.", show_default=False)] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Learn from so many, spread evenly over the data.", show_default=False)
    ] = None,
    checkpoint_steps: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Fine-tune a 1-Lipschitz network on triplets, for decisions that are right and certified.

    The same command continues a run that was interrupted. Certified accuracy on the validation triplets is printed
    before and after; the metric that comes out is for certify, evaluate and attack.

    \b
    Examples, the first one about a minute:
    python -m course_lib finetune --labels lpips-st-alex --limit 1000 --epochs 4
    python -m course_lib finetune --dataset nights --data-dir DIR --network runs/small/student.pt --recipe published
    """  # noqa: D301
    from course_lib.certification import tuning_command
    from course_lib.data import sources

    changes: dict[str, Any] = {"loss": loss, "kind": kind}
    changes |= {"margins": tuple(margin) if margin else None, "epochs": epochs, "seed": seed}
    changes |= {"learning_rate": learning_rate, "batch_size": batch_size, "average": average, "precision": precision}
    chosen = tuning_command.changed(recipe, changes)
    _check_device(device)
    name = "simulated" if dataset == "embedded" else dataset
    train, val = (sources.open_triplets(name, data_dir, split) for split in tuning_command.splits(name))
    tuning_command.run(
        network, _spread(train, limit), val, chosen, labels=labels, fresh=fresh,
        folder=folder or Path("runs", f"finetuned-{Path(network).stem}"), checkpoint_steps=checkpoint_steps,
        device=device,
    )  # fmt: skip


def _load_metric(name: str, device: str) -> Any:
    """A metric by name, as chapter 08 has them, or a certified one from its files."""
    from course_lib import judgments

    if not name.endswith((".safetensors", ".json")):
        return judgments.load(name, device)
    from course_lib.certification import CertifiedMetric

    return judgments.Metric(name, CertifiedMetric.load(name).to(device))


def _number(text: str) -> float:
    """A number, or a fraction such as 8/255."""
    above, _, below = text.partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"--eps {text} is not a number; write 0.5 or 8/255") from None


def _weights(metric: Any) -> str:
    """Where a metric's weights come from, in words."""
    from course_lib.weights import FILES

    net = getattr(metric.distance, "net", None)
    if net is None:
        lipschitz = getattr(metric.distance, "lipschitz", None)
        return "no weights of the course" if lipschitz is None else f"Lipschitz bound {lipschitz:.7f}"
    if metric.name.endswith(".pt"):
        return f"LPIPS with net {net}, trained here"
    if metric.name.endswith("-random"):
        return "random weights"
    what = FILES[net].what if net in FILES else f"{FILES[f'{net}-0.1'].what}, ImageNet trunk"
    return f"{what}; its heads replaced by ones" if metric.name.endswith("-uncalibrated") else what


def _spread(data: Any, limit: int | None) -> Any:
    """At most `limit` items, spread evenly, because neighbours are often of one photograph or subset."""
    import torch

    if limit is None or limit >= len(data):
        return data
    return data.select(torch.arange(limit) * len(data) // limit)


def _check_device(device: str) -> None:
    """Say at once, in one line, that a device is not there."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); use cpu") from None


def main() -> None:
    """Run a command; what goes wrong in an expected way is one line on stderr and exit code 1.

    With ``COURSE_TRACEBACK=1`` in the environment the whole traceback is shown instead.
    """
    try:
        app(prog_name="python -m course_lib")
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("COURSE_TRACEBACK"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
