"""The `hardray` command.

Nothing heavy is imported before a command runs, so that `hardray --help` answers at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from .options import (
    Data,
    Files,
    GoesOn,
    Output,
    Overrides,
    Preset,
    Teacher,
    api,
    as_given,
    check_same_run,
    console,
    default_output,
    given_output,
    holds_run,
    load,
    readable_errors,
    run_to_end,
    say,
    usage,
)
from .verbs import export as take_home
from .verbs.compare import compare
from .verbs.deploy import deploy
from .verbs.evaluate import evaluate
from .verbs.submit import jobs, submit
from .verbs.train_teacher import train_teacher
from .verbs.tune import tune

if TYPE_CHECKING:
    from hard_ray.config.run import RunConfig

app = typer.Typer(
    name="hardray",
    help="Robust knowledge distillation of vision models on Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
)


@app.command()
def distill(
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    output: Output = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Continue this run folder.")] = None,
    teacher: Teacher = None,
    data: Data = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, and stop.")] = False,
    goes_on: GoesOn = False,
) -> None:
    """Train a student on a teacher's answers.

    With learned hard augmentations: images on which student and teacher disagree.
    """
    with readable_errors():
        if resume is not None:
            if overrides or config or preset or output or teacher or data or dry_run or goes_on:
                raise usage("--resume takes the configuration from the run folder; give nothing beside it")
            run_to_end(lambda reporter: api().resume(resume, reporter=reporter))
            return
        loaded = load(config, preset, overrides, teacher=teacher, data=data)
        if dry_run:
            _print_plan(loaded)
            return
        folder = given_output(output, goes_on=goes_on) or default_output(loaded, preset)
        console.print(f"[bold]hardray distill[/bold] -> {escape(str(folder))}", highlight=False)
        if goes_on and holds_run(folder):
            check_same_run(loaded, folder)
            run_to_end(lambda reporter: api().resume(folder, reporter=reporter))
            return
        run_to_end(lambda reporter: api().distill(loaded, folder, reporter=reporter))


app.command()(tune)


@app.command()
def train_autoencoder(
    kind: Annotated[Literal["kl", "vq"], typer.Option("--kind", help="Continuous latents, or codes of a codebook.")],
    output: Annotated[Path, typer.Option("--output", help="Folder of the autoencoder; an unfinished one goes on.")],
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    data: Data = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Length of the training in updates.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images per update.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate of AdamW.")] = None,
    widths: Annotated[
        str | None, typer.Option("--widths", help="Channels of each level, for example 16,32,32; n levels: 2^(n-1) px.")
    ] = None,
    latent_channels: Annotated[int | None, typer.Option("--latent-channels", help="Channels of the latent.")] = None,
    codes: Annotated[int | None, typer.Option("--codes", help="Length of the codebook (vq).")] = None,
) -> None:
    """Train a small autoencoder on your images.

    Of the configuration, `data`, `seed` and `runtime` are used. diffusers loads what comes out.
    """
    from .reporter import autoencoder_lines

    given = {
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "widths": widths.split(",") if widths is not None else None,
        "latent_channels": latent_channels,
        "codes": codes,
    }
    training = {"kind": kind, **{name: value for name, value in given.items() if value is not None}}
    with readable_errors():
        loaded = load(config, preset, overrides, data=data)
        console.print(f"[bold]hardray train-autoencoder[/bold] -> {escape(str(output))}", highlight=False)
        result = api().train_autoencoder(loaded, training, output, say=say)
        for line in autoencoder_lines(result, output):
            console.print(line, highlight=False, soft_wrap=True)


@app.command()
def score_augmentations(
    output: Annotated[Path, typer.Option("--output", help="Folder of the scores; an unfinished one goes on.")],
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    teacher: Teacher = None,
    data: Data = None,
    augmentors: Annotated[
        list[str] | None,
        typer.Option(
            "--augmentors",
            metavar="KIND,NAME=YAML,...",
            help="What is scored, such as identity,cutmix,strong={kind: rand_augment, magnitude: 15}; by default all.",
        ),
    ] = None,
    groups: Annotated[int, typer.Option("--groups", help="Groups that the standard deviation is taken over.")] = 80,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images per batch; a group is 5 batches.")] = 64,
    per: Annotated[
        Literal["batch", "image"], typer.Option("--per", help="Draw once for a batch, as the paper, or for each image.")
    ] = "batch",
    losses: Annotated[
        Path | None, typer.Option("--losses", help="JSON file of students' test losses by name, to correlate.")
    ] = None,
) -> None:
    """Score augmentations for distillation, before a student is trained.

    By the teacher alone: the lower its T. stddev, the lower the loss of a student that learns from the augmentation.
    Of the configuration, `data`, `teacher`, `seed` and `runtime` are used.
    """
    from hard_ray.config.scoring import read_augmentors

    from .reporter import score_lines, score_table

    with readable_errors():
        named = None if augmentors is None else read_augmentors(augmentors)
        loaded = load(config, preset, overrides, teacher=teacher, data=data)
        console.print(f"[bold]hardray score-augmentations[/bold] -> {escape(str(output))}", highlight=False)
        result = api().score_augmentations(
            loaded, output, augmentors=named, groups=groups, batch_size=batch_size, per=per, losses=losses, say=say
        )
        console.print(score_table(result))
        for line in score_lines(result, output):
            console.print(line, highlight=False, soft_wrap=True)


@app.command()
def generate(
    output: Annotated[Path, typer.Option("--output", help="Folder of the set; an unfinished one goes on.")],
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    teacher: Teacher = None,
    data: Data = None,
    method: Annotated[Literal["dad"], typer.Option("--method", help="How images are made.")] = "dad",
    autoencoder: Annotated[
        str | None, typer.Option("--autoencoder", help="What discretises: a folder, or hf-hub:org/name.")
    ] = None,
    split: Annotated[Literal["train", "val", "test"] | None, typer.Option("--split", help="Whose images.")] = None,
    shard_size: Annotated[int | None, typer.Option("--shard-size", help="Images per file.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images that are attacked together.")] = None,
    norm: Annotated[Literal["l2", "linf"] | None, typer.Option("--norm", help="Of the ball around an image.")] = None,
    eps: Annotated[float | None, typer.Option("--eps", help="Radius of the ball.")] = None,
    step_size: Annotated[float | None, typer.Option("--step-size", help="Length of each step.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps of ascent.")] = None,
    random_start: Annotated[
        float | None, typer.Option("--random-start", help="Probability of a random start within the ball.")
    ] = None,
) -> None:
    """Make adversarial images to train with, once and for all.

    Of the configuration, `data`, `teacher`, `runtime` and `seed` are used. What is not given is the paper's.
    """
    from .reporter import generation_lines

    given = {
        "method": method,
        "autoencoder": autoencoder,
        "split": split,
        "shard_size": shard_size,
        "batch_size": batch_size,
        "norm": norm,
        "eps": eps,
        "step_size": step_size,
        "steps": steps,
        "random_start": random_start,
    }
    options = {name: value for name, value in given.items() if value is not None}
    with readable_errors():
        loaded = load(config, preset, overrides, teacher=teacher, data=data)
        console.print(f"[bold]hardray generate[/bold] -> {escape(str(output))}", highlight=False)
        manifest = api().generate(loaded, options, output, say=say)
        again = as_given(config, preset, overrides, teacher=teacher, data=data)
        for line in generation_lines(manifest, output, again):
            console.print(line, highlight=False, soft_wrap=True)


@app.command()
def import_teacher(
    checkpoint: Annotated[Path, typer.Argument(help="Weights: a safetensors or torch file.")],
    model: Annotated[str, typer.Option("--model", help="The architecture: a timm name, or one of hardray's.")],
    output: Annotated[Path, typer.Option("--output", help="Folder of the teacher, which must be new.")],
    classes: Annotated[
        Path | None, typer.Option("--classes", help="Text file: class names in the order of the outputs, one a line.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option("--mean", help="Subtracted per channel, of images in [0, 1]: 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[str | None, typer.Option("--std", help="Divided by per channel: 0.229,0.224,0.225.")] = None,
    img_size: Annotated[int | None, typer.Option("--img-size", help="Input size in pixels.")] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option("--rename", metavar="OLD=NEW", help="Regular expression and what it becomes, in every key."),
    ] = None,
) -> None:
    """Make a teacher of a checkpoint that is not timm's.

    Torch files are read without unpickling objects. What does not fit the architecture is listed.
    """
    from .reporter import teacher_lines

    with readable_errors():
        made = api().import_teacher(
            checkpoint,
            output,
            model=model,
            classes=classes,
            mean=None if mean is None else mean.split(","),
            std=None if std is None else std.split(","),
            img_size=img_size,
            renames=rename or (),
        )
        for line in teacher_lines(made, output):
            console.print(line, highlight=False, soft_wrap=True)


app.command()(evaluate)


@app.command()
def show(
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    teacher: Teacher = None,
    data: Data = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of configurations instead.")] = False,
) -> None:
    """Print the resolved configuration as YAML.

    It loads back to the same configuration with `-c`.
    """
    from hard_ray.config.loader import dump_yaml
    from hard_ray.config.run import RunConfig

    with readable_errors():
        if schema:
            sys.stdout.write(json.dumps(RunConfig.model_json_schema(), indent=2) + "\n")
            return
        sys.stdout.write(dump_yaml(load(config, preset, overrides, teacher=teacher, data=data)))


@app.command()
def presets() -> None:
    """List the shipped configurations."""
    from hard_ray.config.loader import preset_description, preset_names

    for name in preset_names():
        console.print(f"[bold]{name:<12}[/bold] {escape(preset_description(name))}", highlight=False)


@app.command()
def doctor(
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    address: Annotated[str | None, typer.Option("--address", help="A Ray cluster to look at as well.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="A folder that every node of the cluster is to see.")
    ] = None,
) -> None:
    """Say what can be used here, and what is wrong.

    With a configuration, whether the cluster has all that the run reserves.
    """
    from .verbs.doctor import examine

    with readable_errors():
        loaded = load(config, preset, overrides) if config or preset or overrides else None
        raise typer.Exit(0 if examine(console, address, config=loaded, output=output) else 1)


@app.command()
def ui(
    runs: Annotated[Path, typer.Option("--runs", help="The folder that holds the run folders.")] = Path("runs"),
    host: Annotated[str, typer.Option("--host", help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 5000,
) -> None:
    """Open MLflow on the runs of a folder."""
    import os

    from hard_ray.addresses import without_password
    from hard_ray.errors import RunFolderError
    from hard_ray.tracking import default_uri

    with readable_errors():
        database = runs.expanduser().resolve() / "mlflow.db"
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri and uri.startswith("http"):
            console.print(f"runs are recorded at the server of MLFLOW_TRACKING_URI: {escape(without_password(uri))}")
            return
        if not database.is_file():
            raise RunFolderError(f"{runs} holds no mlflow.db; give the folder of your runs with --runs")
        console.print(f"MLflow on http://{host}:{port} (Ctrl-C ends it)", highlight=False)
        os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # seven processes that nobody asked for
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", default_uri(database.parent)]
        os.execv(sys.executable, [*command, "--host", host, "--port", str(port)])  # noqa: S606


@app.command()
def sync(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Send to MLflow what a run could not send."""
    with readable_errors():
        api().sync(run, say=say)


@app.command()
def gallery(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[Path | None, typer.Option("--to", help="Folder for the pictures; by default RUN/gallery.")] = None,
) -> None:
    """Draw what the augmentor does, and how it changed.

    From the run folder alone, while the run goes on or after it.
    """
    with readable_errors():
        for path in api().gallery(run, to=to):
            console.print(escape(str(path)), highlight=False, soft_wrap=True)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[Path | None, typer.Option("--to", help="The HTML file; by default RUN/report.html.")] = None,
) -> None:
    """Write a page with the results, curves, pictures and configuration of a run.

    From the run folder alone, while the run goes on or after it.
    """
    with readable_errors():
        console.print(escape(str(api().report(run, to=to))), highlight=False, soft_wrap=True)


app.command()(train_teacher)
app.command()(compare)
app.command()(take_home.export)
app.command()(take_home.predict)
app.command()(deploy)
app.command(context_settings={"allow_interspersed_args": False})(submit)
app.command()(jobs)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        console.print(f"hardray {installed('hardray')}", highlight=False)
        raise typer.Exit


def _print_plan(config: RunConfig) -> None:
    from .dry_run import print_plan

    print_plan(console, config)


if __name__ == "__main__":
    app()
