"""`hardray deploy`: Kubernetes manifests."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .common import readable_errors, usage

deploy = typer.Typer(help="Kubernetes manifests of a cluster, or of one command.", no_args_is_help=True)


@deploy.callback()
def _family() -> None:
    """Manifests for KubeRay."""


@deploy.command()
def render(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND", help="What the job runs, without `hardray`.")
    ] = None,
    overlay: Annotated[str, typer.Option("--overlay", help="cpu, gpu, or cluster for one that stays.")] = "gpu",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="For example image=REGISTRY/hardray:TAG; may be given again."),
    ] = None,
) -> None:
    """Print the manifests of a command, for `kubectl apply -f -`."""
    with readable_errors():
        from hard_ray.deployment import render as rendered

        given = {}
        for text in settings or []:
            key, sep, value = text.partition("=")
            if not sep or not value:
                raise usage(f"--set {text}: want KEY=VALUE, for example image=REGISTRY/hardray:TAG")
            given[key] = value
        sys.stdout.write(rendered(overlay, given, command or ()))
