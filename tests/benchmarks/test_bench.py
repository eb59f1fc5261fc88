"""The benchmark measures what a run does."""

import pytest

from benchmarks.pick import STEPS, Step, main


def test_the_counted_arithmetic_is_that_of_the_networks_passes():
    flops = {name: Step(config, "cifar_resnet8", "cifar_resnet8", 8).arithmetic() for name, config in STEPS.items()}
    forward = flops["pick, teacher_entropy"] - flops["cutmix"]  # 8 candidates more for the teacher
    assert forward == pytest.approx(8 * 2 * 12.4e6, rel=0.03)  # 12.4 million multiply-adds an image
    assert flops["pick, student_entropy"] - flops["cutmix"] == 2 * forward  # 16 candidates for the student
    assert flops["pick, kl"] - flops["cutmix"] == 3 * forward


def test_every_step_is_printed_with_its_ratio_to_cutmix(capsys: pytest.CaptureFixture[str]):
    main(["--teacher", "cifar_resnet8", "--batch-size", "4", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == list(STEPS)
    assert lines[2].split()[-3:] == ["1.000"] * 3
