from pathlib import Path

import pytest

from tests.support.saved_students import number_config, number_folder, saved_run


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    path = tmp_path_factory.mktemp("home")
    config = number_config(number_folder(path / "numbers"), "student.model=test_resnet")
    saved_run(path / "run", config, steps=20)
    return path / "run"
