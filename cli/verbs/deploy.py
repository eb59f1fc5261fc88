"""`hardray deploy`: prints Kubernetes manifests."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from typing import Annotated, Literal

import typer

from ..job_command import check_command
from ..terminal import usage_error


def deploy(
    context: typer.Context,
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
    from hard_ray.orchestration.jobs import manifests
    from hard_ray.orchestration.jobs.checks import check_words
    from hard_ray.redaction import masked

    given: dict[str, str] = {}
    for text in settings or []:
        key, sep, value = text.partition("=")
        if not sep or not value:
            raise usage_error(f"--set {masked(text)}: want KEY=VALUE, for example image=REGISTRY/hardray:TAG")
        if key in given:
            raise usage_error(
                f"--set {key}: given twice, as {masked(given[key])} and {masked(value)}; keep one of them"
            )
        given[key] = value
    manifests.check(overlay, given, command or ())
    if command:
        check_words(command, remedy="a manifest is read by others; put it into a Secret, as deploy/README.md says")
        with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):  # a job has no files of this folder
            check_command(manifests.whole(command, overlay, given), context.find_root().command, sends=False)
    sys.stdout.write(manifests.render(overlay, given, command or ()))
