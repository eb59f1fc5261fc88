from pathlib import Path

from hard_ray.config.autoencoder_training import autoencoder_run
from hard_ray.config.loader import load_config
from tests.cli.commands import invoke


def test_mistakes_in_the_options_of_an_autoencoder_are_one_message_and_start_nothing(tmp_path: Path):
    output = tmp_path / "ae"
    command = ("train-autoencoder", "--kind", "kl", "--preset", "digits", "--output", str(output))
    done = invoke(*command, "--steps", "0", "--lr", "-1", "--widths", "8,x", "--codes", "9")
    assert done.exit_code == 2
    text = " ".join(done.stderr.split())
    assert "4 problems in the options" in text
    for key in ("training.steps", "training.lr", "training.widths.1", "training.codes"):
        assert key in text
    assert invoke(*command, "--batch-size", "5000", "--widths", "8, 16").exit_code == 1  # of the batch alone
    assert not output.exists()


def test_a_folder_that_is_no_unfinished_autoencoder_is_refused(tmp_path: Path):
    command = ("train-autoencoder", "--kind", "vq", "--preset", "digits", "--output", str(tmp_path))
    (tmp_path / "notes.txt").write_text("mine")
    done = invoke(*command)
    assert done.exit_code == 1
    assert "holds no autoencoder of hardray's" in " ".join(done.stderr.split())
    (tmp_path / "training.yaml").write_text("seed: 0")
    (tmp_path / "result.json").write_text('{"psnr": 21.5}')
    done = invoke(*command)
    assert done.exit_code == 1
    assert "holds a finished autoencoder (21.50 dB)" in " ".join(done.stderr.split())


def test_what_a_kind_does_not_take_and_what_a_patch_or_a_teacher_lacks_are_messages(tmp_path: Path):
    output = tmp_path / "ae"
    command = ("train-autoencoder", "--preset", "digits", "--output", str(output))

    def said(*options: str) -> str:
        done = invoke(*command, *options)
        assert done.exit_code == 2
        assert not output.exists()
        return " ".join(done.stderr.split())

    assert "training.factor: unknown key" in said("--kind", "kl", "--factor", "2")
    assert "training.widths: unknown key" in said("--kind", "patch", "--widths", "8,16")
    assert "latent_channels=5 exceeds the 4 values" in said(
        "--kind", "patch", "--factor", "2", "--latent-channels", "5"
    )
    assert "the teacher has no weights; give teacher.checkpoint" in said("--kind", "vq", "--perceptual", "0.1")


def test_the_perceptual_loss_takes_the_teacher_of_the_configuration(tmp_path: Path):
    config = load_config(overrides=[f"teacher.checkpoint={tmp_path / 'weights.pt'}"])
    assert autoencoder_run(config, {"kind": "vq", "perceptual": 0.1}).teacher == config.teacher
    assert autoencoder_run(config, {"kind": "vq"}).teacher is None


def test_images_without_labels_need_no_teacher(tmp_path: Path):
    command = ("train-autoencoder", "--kind", "kl", "--preset", "cifar10", "--output", str(tmp_path / "ae"))
    done = invoke(*command, "data.kind=images", f"data.path={tmp_path / 'none'}")
    assert "there is no such folder; set data.path" in " ".join(done.stderr.split())
