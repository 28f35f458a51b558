"""The learning rate, update by update."""

from __future__ import annotations

from resnet_repro.training.schedule import lr_at

PAPER = {"lr": 0.1, "milestones": [32_000, 48_000], "gamma": 0.1}


def test_update_32001_is_the_first_at_a_tenth() -> None:
    assert [round(lr_at(i, **PAPER), 9) for i in (0, 31_998, 31_999, 32_000, 32_001)] == [
        0.1,
        0.1,
        0.1,
        0.01,
        0.01,
    ]
    assert [round(lr_at(i, **PAPER), 9) for i in (47_999, 48_000, 63_999)] == [0.01, 0.001, 0.001]


def test_fixed_warm_up_lasts_400_updates() -> None:
    rates = [lr_at(i, **PAPER, warmup="iters400") for i in (0, 399, 400)]
    assert rates == [0.01, 0.01, 0.1]


def test_trap_01_02_03_warm_up_ends_and_drops_start_from_the_full_rate() -> None:
    """Others stay at 0.01 until epoch 100, drop from 0.01, or never end the warm-up."""
    warm = {**PAPER, "warmup": "error80"}
    assert lr_at(10_000, **warm, warmup_exit=None) == 0.01
    assert lr_at(411, **warm, warmup_exit=412) == 0.01
    assert lr_at(412, **warm, warmup_exit=412) == 0.1
    assert round(lr_at(32_000, **warm, warmup_exit=412), 9) == 0.01
