"""Presets: the configurations that hardray ships."""

from importlib import resources

from hard_ray.errors import ConfigError, suggestion


def preset_names() -> list[str]:
    """Names of the presets, sorted."""
    folder = resources.files("hard_ray.config.presets")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """The YAML of a preset."""
    if name not in preset_names():
        raise ConfigError([f"no preset is named {name!r}; {suggestion(name, preset_names())}"], "--preset")
    return (resources.files("hard_ray.config.presets") / f"{name}.yaml").read_text(encoding="utf-8")


def preset_description(name: str) -> str:
    """The comment on a preset's first line."""
    return preset_text(name).splitlines()[0].lstrip("# ").rstrip()
