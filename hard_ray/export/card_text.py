"""Parts of a model card: heading, tables, and the Python code that loads the network."""

from __future__ import annotations

from collections.abc import Mapping

from hard_ray.networks.network import ImageSpec, Network
from hard_ray.runs.markdown import markdown_table


def card_text(
    network: Network, images: ImageSpec, *, what: str, facts: Mapping[str, str], has_classes: bool = True
) -> str:
    """The text of a short model card; `what` describes the network, `facts` are more rows of the table."""
    head = [["parameters", f"{parameter_count(network):,}"], *input_rows(network, images)]
    body = markdown_table(["", ""], [*head, *facts.items()])
    return f"""{title(network.architecture, has_classes=has_classes)}

{what}

{body}

{timm_code(network)}
"""


def title(name: str, *, has_classes: bool = True) -> str:
    """The metadata block for model hubs, and the heading."""
    return f"""---
tags:
- {"image-classification" if has_classes else "image-feature-extraction"}
- timm
library_name: timm
---
# {name}"""


def input_rows(network: Network, images: ImageSpec) -> list[list[str]]:
    """The network's input, as rows of a table."""
    size = network.contract.size or (images.img_size, images.img_size)
    return [
        ["input", f"{images.in_chans} x {size[0]} x {size[1]}"],
        ["mean, std", f"{network.contract.mean}, {network.contract.std}"],
    ]


def parameter_count(network: Network) -> int:
    """Number of learned parameters."""
    return sum(parameter.numel() for parameter in network.model.parameters())


def is_own(network: Network) -> bool:
    """Whether the architecture is hardray's own, which timm knows only after `import hard_ray.networks`."""
    return type(network.model).__module__.startswith("hard_ray.")


def timm_code(network: Network) -> str:
    """Python that loads the folder."""
    own = "import hard_ray.networks  # registers the architecture\n" if is_own(network) else ""
    return f"""```python
import timm
{own}
model = timm.create_model("local-dir:PATH", pretrained=True).eval()
```"""
