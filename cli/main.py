"""The `hardray` command.

Nothing heavy is imported before a command runs, so that `hardray --help` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .terminal import console
from .verbs.compare import compare
from .verbs.deploy import deploy
from .verbs.distill import distill
from .verbs.doctor import doctor
from .verbs.evaluate import evaluate
from .verbs.export import export
from .verbs.gallery import gallery
from .verbs.generate import generate
from .verbs.import_teacher import import_teacher
from .verbs.jobs import jobs
from .verbs.predict import predict
from .verbs.report import report
from .verbs.score_augmentations import score_augmentations
from .verbs.show import presets, show
from .verbs.submit import submit
from .verbs.sync import sync
from .verbs.train_autoencoder import train_autoencoder
from .verbs.train_teacher import train_teacher
from .verbs.tune import tune
from .verbs.ui import ui

app = typer.Typer(
    name="hardray",
    help="Robust knowledge distillation of vision models on Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
)

# in the order of `hardray --help`
app.command()(distill)
app.command()(tune)
app.command()(train_autoencoder)
app.command()(score_augmentations)
app.command()(generate)
app.command()(import_teacher)
app.command()(evaluate)
app.command()(show)
app.command()(presets)
app.command()(doctor)
app.command()(ui)
app.command()(sync)
app.command()(gallery)
app.command()(report)
app.command()(train_teacher)
app.command()(compare)
app.command()(export)
app.command()(predict)
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


if __name__ == "__main__":
    app()
