"""The `hardray` command.

Nothing heavy is imported before a command runs, so that `hardray --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from .terminal import console, readable_errors
from .verbs.compare import compare
from .verbs.deploy import deploy
from .verbs.distill import distill
from .verbs.doctor import doctor
from .verbs.evaluate import evaluate
from .verbs.export import export
from .verbs.fit_head import fit_head
from .verbs.gallery import gallery
from .verbs.generate import generate
from .verbs.import_teacher import import_teacher
from .verbs.index import index
from .verbs.jobs import jobs
from .verbs.predict import predict
from .verbs.probe import probe
from .verbs.recommend import recommend
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


def _register(*verbs: Callable[..., None], **settings: Any) -> None:
    for verb in verbs:
        app.command(context_settings=settings)(readable_errors()(verb))


# in the order of `hardray --help`
_register(distill, tune, recommend, train_autoencoder, score_augmentations, generate, import_teacher, fit_head)
_register(evaluate, probe)
_register(show, presets)
_register(doctor, index, ui, sync, gallery, report, train_teacher, compare, export, predict, deploy)
_register(submit, allow_interspersed_args=False)
_register(jobs)


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
