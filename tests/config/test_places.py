"""Where a path may stand, a URL may: it is kept as it is, and one with a credential is refused."""

from __future__ import annotations

import pytest

from hard_ray.config.loader import absolute, load_config, validate
from hard_ray.config.safe_yaml import dump_yaml, parse_yaml
from hard_ray.errors import ConfigError
from hard_ray.storage.address import Remote

GENERATED = ("objective.kind=dad", "augmentor.kind=generated")
VAE = ("objective.kind=hard", "augmentor.kind=vae")
URL = "s3://bucket/a b/c%20d?region=eu-west-1"
KEPT = "s3://bucket/a%20b/c%20d?region=eu-west-1"


@pytest.mark.parametrize(
    ("key", "before", "others"),
    [
        ("teacher.model", "local-dir:", ()),
        ("student.model", "local-dir:", ()),
        ("teacher.checkpoint", "", ()),
        ("augmentor.path", "", GENERATED),
        ("augmentor.autoencoder.model", "local-dir:", VAE),
    ],
)
def test_a_url_stays_the_same_through_a_saved_configuration(key: str, before: str, others: tuple[str, ...]):
    config = absolute(load_config(preset="digits", overrides=[*others, f"{key}='{before}{URL}'"]))
    again = validate([parse_yaml(dump_yaml(config), "saved")], source="saved")
    for found in (config, again):
        value = found
        for part in key.split("."):
            value = getattr(value, part)
        assert str(value) == f"{before}{KEPT}"
    if not before:
        assert isinstance(value, Remote)


def test_a_bare_url_is_an_autoencoder(monkeypatch: pytest.MonkeyPatch):
    config = load_config(preset="digits", overrides=[*VAE, "augmentor.autoencoder.model=s3://bucket/coder"])
    assert config.augmentor.autoencoder.model == "local-dir:s3://bucket/coder"


@pytest.mark.parametrize(
    ("key", "before", "others"),
    [
        ("teacher.model", "local-dir:", ()),
        ("augmentor.path", "", GENERATED),
        ("augmentor.autoencoder.model", "", VAE),
    ],
)
@pytest.mark.parametrize(
    "url", ["s3://me:planted@bucket/x", "s3://bucket/x?secret_key=planted", "ftp://bucket/planted"]
)
def test_a_url_with_a_credential_or_of_another_kind_is_refused(
    key: str, before: str, others: tuple[str, ...], url: str
):
    with pytest.raises(ConfigError, match=key) as caught:
        load_config(preset="digits", overrides=[*others, f"{key}='{before}{url}'"])
    assert ("planted" in str(caught.value)) == url.startswith("ftp")


def test_a_relative_folder_after_its_prefix_is_still_made_absolute(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = absolute(load_config(preset="digits", overrides=["teacher.model=local-dir:towers/x"]))
    assert config.teacher.model == f"local-dir:{tmp_path}/towers/x"
