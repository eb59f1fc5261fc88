import json
from pathlib import Path

import pytest
import yaml

from tests.cli.commands import invoke


def test_show_prints_what_loads_back_to_the_same(tmp_path: Path):
    first = invoke("show", "--preset", "digits", "optim.lr=0.3", "seed=4")
    assert first.exit_code == 0
    path = tmp_path / "c.yaml"
    path.write_text(first.stdout)
    assert invoke("show", "-c", str(path)).stdout == first.stdout
    assert yaml.safe_load(first.stdout)["optim"]["lr"] == 0.3


def test_show_schema_is_a_json_schema_that_the_presets_satisfy():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(invoke("show", "--schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(invoke("show", "--preset", "digits").stdout), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"optim": {"lrr": 1}}, schema)


def test_shorthands_for_teacher_and_data(tmp_path: Path):
    done = invoke("show", "--teacher", "resnet50", "--data", str(tmp_path / "a b"))
    config = yaml.safe_load(done.stdout)
    assert config["teacher"]["model"] == "resnet50"
    assert config["data"]["kind"] == "image_folder"
    assert config["data"]["path"] == str(tmp_path / "a b")
    assert yaml.safe_load(invoke("show", "--data", "/x", "data.kind=parquet").stdout)["data"]["kind"] == "parquet"


def test_data_is_an_image_folder_unless_preset_file_or_override_says_otherwise(tmp_path: Path):
    sized, parquet = tmp_path / "sized.yaml", tmp_path / "parquet.yaml"
    sized.write_text("data: {img_size: 64}\n")
    parquet.write_text("data: {kind: parquet, path: /y}\n")

    def data(*arguments: str) -> tuple[str, str, int]:
        done = invoke("show", "--data", "/x", *arguments)
        assert done.exit_code == 0, done.stderr
        found = yaml.safe_load(done.stdout)["data"]
        return found["kind"], found["path"], found["img_size"]

    assert data("-c", str(sized)) == ("image_folder", "/x", 64)
    assert data("-c", str(sized), "-c", str(parquet)) == ("parquet", "/x", 224)
    assert data("--preset", "mnist-shift") == ("idx", "/x", 28)
    assert data("--preset", "mnist-shift", "-c", str(sized)) == ("idx", "/x", 64)
    assert data("--preset", "cifar10") == ("image_folder", "/x", 32)
    assert data("--preset", "digits", "data.kind=image_folder") == ("image_folder", "/x", 224)
    refused = invoke("show", "--preset", "digits", "--data", "/x")
    assert refused.exit_code == 2
    assert "data.path: unknown key here; another kind of data has it" in refused.stderr


def test_presets_are_listed_with_a_line_each():
    done = invoke("presets")
    assert done.exit_code == 0
    assert "digits" in done.stdout
    assert "HARD-Affine" in done.stdout
