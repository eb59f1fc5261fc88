"""Addresses: what is a URL, what survives a round trip, and which credentials are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from hard_ray.errors import StorageError
from hard_ray.storage.address import Remote, is_url, local_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/a", True),
        ("gs://bucket", True),
        ("abfss://c@a.dfs.core.windows.net/x", True),
        ("hf://datasets/a/b", True),
        ("file:///data", True),
        ("http://host/x", True),
        (Path("s3://bucket/a"), True),
        (Path("file:///data"), True),
        ("data/birds", False),
        ("/data/s3", False),
        ("C:/birds", False),
    ],
)
def test_a_url_is_told_from_a_path(text, expected):
    assert is_url(text) is expected


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a/b.tar",
        "s3://bucket/",
        "s3://bucket/a%20b/100%25%3F%23.tar?endpoint_override=127.0.0.1:9000&region=eu-west-1&scheme=http",
        "gs://bucket/images?anonymous=true",
        "abfss://container@account.dfs.core.windows.net/images",
        "hf://datasets/user/birds/train.parquet",
        "file:///data/my%20birds",
    ],
)
def test_an_address_survives_text_and_pickle(url):
    remote = Remote.parse(url)
    assert str(remote) == url
    assert Remote.parse(str(remote)) == remote
    assert pickle.loads(pickle.dumps(remote)) == remote


def test_a_url_that_pathlib_collapsed_is_restored():
    assert Remote.parse(Path("s3://bucket/a/b")) == Remote.parse("s3://bucket/a/b")
    assert Remote.parse(Path("file:///data/x")) == Remote.parse("file:///data/x")


def test_parts_of_an_address():
    remote = Remote.parse("s3://bucket/a/?region=eu-west-1")
    child = remote / "b c" / "d%20.tar"
    assert (child.key, child.name, child.suffix) == ("a/b c/d%20.tar", "d%20.tar", ".tar")
    assert child.parent == remote / "b c"
    assert child.options == {"region": "eu-west-1"}
    assert Remote.parse(str(child)) == child
    assert child.shown == "s3://bucket/a/b c/d%20.tar"
    whole = Remote.parse("s3://bucket")
    assert (whole.key, whole.name, whole.parent) == ("", "bucket", whole)


def test_storage_options_join_the_query_which_comes_first():
    remote = Remote.parse("s3://bucket/a?region=eu-west-1", {"region": "us-east-1", "anonymous": True, "scheme": None})
    assert remote.options == {"region": "eu-west-1", "anonymous": "true"}


@pytest.mark.parametrize(
    ("url", "options", "named"),
    [
        ("s3://AKIAPLANTED:planted@bucket/a", {}, "user or password"),
        ("s3://planted@bucket/a", {}, "user or password"),
        ("s3://AKIAPLANTED:pla/planted@bucket/a", {}, "user or password"),
        ("s3://AKIA:9000/a", {}, "a colon in the bucket's name"),
        ("abfss://c@a.dfs.core.windows.net/a?sig=planted", {}, "the credential"),
        ("abfss://container:planted@account.dfs.core.windows.net/a", {}, "user or password"),
        ("s3://bucket/a?access_key=planted", {}, "access_key"),
        ("s3://bucket/a?X-Amz-Signature=planted", {}, "X-Amz-Signature"),
        ("s3://bucket/a", {"secret_key": "planted"}, "secret_key"),
        ("s3://bucket/a", {"session_token": "planted"}, "session_token"),
        ("abfss://c@a.dfs.core.windows.net/a", {"sas_token": "planted"}, "sas_token"),
        ("abfss://c@a.dfs.core.windows.net/a?account_key=planted", {}, "account_key"),
        ("hf://datasets/a/b", {"token": "planted"}, "token"),
    ],
)
def test_credentials_are_refused_and_not_repeated(url, options, named):
    with pytest.raises(StorageError, match="environment") as found:
        Remote.parse(url, options)
    text = str(found.value)
    assert named in text
    assert "planted" not in text.lower()
    assert "\n" not in text


@pytest.mark.parametrize(
    "url", ["s3a://b/x", "wasbs://c/x", "https://h/x.yaml", "s3://b/runs/%2E", "s3://b/a/../x", "s3://b/a/.."]
)
@pytest.mark.parametrize("kind", [str, Path])
def test_what_is_no_place_is_refused_and_never_taken_for_a_folder(url: str, kind: type):
    assert is_url(kind(url))
    with pytest.raises(StorageError, match="no address that can be read|leads to a folder above"):
        Remote.parse(kind(url))


def test_an_address_in_the_query_survives_pathlib():
    url = "S3://b/x?endpoint_override=http://minio:9000&scheme=http"
    assert Remote.parse(Path(url)) == Remote.parse(url)
    assert Remote.parse(Path(url)).options["endpoint_override"] == "http://minio:9000"


def test_a_url_is_refused_where_a_path_is_wanted():
    assert local_path("runs/x") == Path("runs/x")
    with pytest.raises(StorageError, match=r"s3://bucket/a is a URL.*give a path"):
        local_path(Path("s3://bucket/a?region=x"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://bucket/a?regoin=x", "did you mean region"),
        ("file:///a?region=x", "it takes none"),
        ("s4://bucket/a", "s3://"),
        ("http://host/a", "s3://"),
        ("s3:///a", "names no bucket"),
        ("file://host/a", "names a machine"),
        ("data/birds", "no address"),
    ],
)
def test_what_cannot_be_an_address_is_refused(url, said):
    with pytest.raises(StorageError, match=said):
        Remote.parse(url)
