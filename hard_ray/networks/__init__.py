"""Networks: importing this package registers hardray's own with timm."""

from hard_ray.networks import zoo as zoo
