"""The text of a model card: what a network is, the facts as a table, and how timm loads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hard_ray.networks.network import ImageSpec, Network


def card_text(network: Network, images: ImageSpec, *, what: str, facts: Mapping[str, str]) -> str:
    """The text of a model card: what it is, the facts as a table, and how timm loads it."""
    head = [["parameters", f"{parameter_count(network):,}"], *input_rows(network, images)]
    body = table(["", ""], [*head, *facts.items()])
    return f"""{title(network.architecture)}

{what}

{body}

{timm_code(network)}
"""


def title(name: str) -> str:
    """The block that model hubs read, and the heading."""
    return f"""---
tags:
- image-classification
- timm
library_name: timm
---
# {name}"""


def input_rows(network: Network, images: ImageSpec) -> list[list[str]]:
    """What the network is given, as rows of a table."""
    size = network.contract.size or (images.img_size, images.img_size)
    return [
        ["input", f"{images.in_chans} x {size[0]} x {size[1]}"],
        ["mean, std", f"{network.contract.mean}, {network.contract.std}"],
    ]


def parameter_count(network: Network) -> int:
    """Numbers that were learned."""
    return sum(parameter.numel() for parameter in network.model.parameters())


def is_own(network: Network) -> bool:
    """Whether timm knows the architecture only once `hard_ray.networks` is imported."""
    return type(network.model).__module__.startswith("hard_ray.")


def timm_code(network: Network) -> str:
    """Python that loads the folder."""
    own = "import hard_ray.networks  # registers the architecture\n" if is_own(network) else ""
    return f"""```python
import timm
{own}
model = timm.create_model("local-dir:PATH", pretrained=True).eval()
```"""


def table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Rows of text as a table."""
    head = f"| {' | '.join(header)} |" if any(header) else f"|{' |' * len(header)}"
    rows = [[cell.replace("|", "\\|") for cell in row] for row in body]
    return "\n".join([head, f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows)])
