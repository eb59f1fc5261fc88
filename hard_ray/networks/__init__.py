"""Networks; importing this package registers hardray's own architectures with timm."""

from hard_ray.networks import tower as tower
from hard_ray.networks import zoo as zoo
