"""`hardray fit-head`: puts a class head on a frozen tower."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from hard_ray.errors import command_line

from ..options import Data, Files, Overrides, Preset, as_given, job_folder, listed, load, path_or_url, shown
from ..terminal import print_heading, print_lines, print_pairs, say, usage_error

if TYPE_CHECKING:
    from hard_ray.preparation.head_folder import HeadResult


def fit_head(
    kind: Annotated[
        Literal["probe", "prototypes", "zero-shot"],
        typer.Option(help="Logistic regression on labels, k-means without labels, or CLIP's text tower."),
    ],
    output: Annotated[
        Path, typer.Option(help="Folder or URL of the teacher; features in it are kept.", parser=path_or_url)
    ],
    overrides: Overrides = None,
    config: Files = None,
    preset: Preset = None,
    tower: Annotated[
        str | None, typer.Option(help="Short for teacher.model=...: the network whose features are used.")
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Short for teacher.pretrained=true: timm's weights.")
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Short for teacher.checkpoint=...", parser=path_or_url)
    ] = None,
    data: Data = None,
    images: Annotated[int | None, typer.Option(help="Most images of a split; unset: all.")] = None,
    c: Annotated[
        str | None, typer.Option("--c", help="probe: values of scikit-learn's C that are tried, as 0.01,1,100.")
    ] = None,
    count: Annotated[int | None, typer.Option(help="prototypes: how many; 1024 unless set.")] = None,
    seed: Annotated[int | None, typer.Option(help="prototypes: seed of the first centres.")] = None,
    entropy: Annotated[
        float | None, typer.Option(help="prototypes: mean entropy of the answers as a share of log(count).")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="zero-shot: text file, or its URL, with a class name on each line.", parser=path_or_url),
    ] = None,
    prompts: Annotated[
        list[str] | None, typer.Option(help="zero-shot: text with {} for the name; may be repeated.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, ask the tower about an image, say what will be done.")
    ] = False,
) -> None:
    """Put a class head on a frozen tower, to distill from it.

    The tower is `teacher` of the configuration; `data`, `runtime` and `teacher.img_size` are used too. Its features are
    computed once, on actors, and kept in the folder: a stopped command continues, and another head uses them again.
    """
    from hard_ray import api

    given = {"c": listed(c, "--c"), "count": count, "seed": seed, "entropy": entropy, "images": images}
    options: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    options |= {} if classes is None else {"classes": shown(classes)}
    options |= {"prompts": prompts} if prompts else {}
    if tower is None and not any(part.startswith("teacher.model=") for part in overrides or []) and not config:
        raise usage_error("name the tower with --tower: a timm name, local-dir:FOLDER or hf-hub:ORG/NAME")
    short = [*(["teacher.pretrained=true"] if pretrained else []), *_checkpoint(checkpoint)]
    loaded = load(config, preset, [*short, *(overrides or [])], teacher=tower, data=data, trains=False)
    if dry_run:
        from hard_ray.config.heads import head_settings
        from hard_ray.orchestration.fit_head import plan_lines

        print_pairs(plan_lines(loaded, head_settings({"kind": kind, **options}), job_folder(output)))
        return
    print_heading("fit-head", shown(output))
    made = api.fit_head(loaded, {"kind": kind, **options}, output, say=say)
    others = [part for part in overrides or [] if not part.startswith(("teacher.", "teacher="))]
    print_lines(head_lines(made, job_folder(output), as_given(config, preset, others, teacher=None, data=data)))


def _checkpoint(path: Path | None) -> list[str]:
    from hard_ray.config.layers import override

    return [] if path is None else [override("teacher.checkpoint", path)]


def head_lines(made: HeadResult, folder: Path, given: Sequence[str]) -> list[str]:
    """Lines about a teacher, and the command that distills from it; `given` are the words of its configuration."""
    from hard_ray.config.layers import override
    from hard_ray.storage.mirror import shown_path

    facts, place = made.facts, shown_path(folder)
    lines = [f"[bold]{escape(facts['kind'])}[/bold]  {facts['outputs']:,} outputs on {facts['features']:,} features"]
    if facts["kind"] == "probe":
        found = "  ".join(f"{split} {value:.2f} %" for split, value in facts["top1"].items())
        lines.append(f"top-1    {found}  (C {facts['c']:g})")
    elif facts["kind"] == "prototypes":
        lines.append(
            f"answers  temperature {facts['temperature']:.4g}, mean entropy {facts['entropy']:g} of "
            f"log({facts['count']}); mean cosine to the nearest prototype {facts['mean_cosine']:.3f}"
        )
        lines.append(f"images   {facts['smallest']:,} to {facts['largest']:,} for each prototype")
    else:
        lines.append(f"answers  cosine times {facts['scale']:.4g}; {len(facts['prompts'])} prompts")
    lines += [f"note     {escape(note)}" for note in made.notes]
    lines.append(f"teacher  {escape(place)}")
    teach = command_line("distill", *given, override("teacher.model", f"local-dir:{place}"), "student.model=STUDENT")
    lines.append(f"teach    {escape(teach)}")
    return lines
