"""`hardray deploy`: prints Kubernetes manifests."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from ..terminal import usage_error


def deploy(
    action: Annotated[Literal["render"], typer.Argument(metavar="render", help="Print the manifests.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND", help="The command that the job runs, without `hardray`.")
    ] = None,
    overlay: Annotated[str, typer.Option(help="cpu, gpu, or cluster for one that stays up.")] = "gpu",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="For example image=REGISTRY/hardray:TAG; may be repeated."),
    ] = None,
) -> None:
    """Print Kubernetes manifests for a command or a cluster.

    Give them to `kubectl apply -f -`; KubeRay runs them. Rendering needs kubectl, but no cluster.
    """
    from hard_ray.orchestration.jobs.manifests import render

    given = {}
    for text in settings or []:
        key, sep, value = text.partition("=")
        if not sep or not value:
            raise usage_error(f"--set {text}: want KEY=VALUE, for example image=REGISTRY/hardray:TAG")
        given[key] = value
    sys.stdout.write(render(overlay, given, command or ()))
