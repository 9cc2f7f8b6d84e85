"""Findings: when one passes, and which numbers of it are shown."""

import math

import torch

from kahler_verify.evidence.finding import EPSILON, Finding, frame_error


def test_the_bound_shown_is_that_of_the_point_nearest_to_failing() -> None:
    finding = Finding((1e-3, 2e-2), (1e-2, 1.0))
    assert finding.passed
    assert finding.error == 2e-2
    assert finding.bound == 1e-2
    assert not Finding((1e-3, 2e-2), (1e-2, 1e-2)).passed


def test_equality_has_the_bound_zero() -> None:
    assert Finding((0.0,), (0.0,), unit="exact").passed
    assert not Finding((math.inf,), (0.0,), unit="exact").passed


def test_what_has_no_error_of_its_own_counts_as_trials() -> None:
    assert Finding(trials=3).passed
    assert Finding(trials=3).points == 0
    assert not Finding(trials=3, complaints=("violated",)).passed
    assert not Finding().passed
    assert math.isnan(Finding().error)
    assert math.isnan(Finding().bound)


def test_the_constant_is_that_of_a_bound_that_scales() -> None:
    finding = Finding((8 * EPSILON,), (1.0,), conditions=(4.0,), scales=True)
    assert finding.constant == 2.0
    assert math.isnan(Finding((8 * EPSILON,), (1.0,), conditions=(4.0,)).constant)


def test_complaints_come_before_the_note() -> None:
    assert Finding((0.0,), (1.0,), note="by hand", complaints=("odd",)).story == "odd; by hand"


def test_errors_are_measured_in_the_frame_of_g() -> None:
    """A small error of an entry that is large in g's units, and an upper index the other way."""
    scale = torch.tensor([1e3, 1.0], dtype=torch.float64)
    truth = torch.diag(scale**2)
    value = truth + torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    assert math.isclose(frame_error(value, truth, scale), 1e-6, rel_tol=1e-6)
    vector = torch.tensor([1e-3, 0.0], dtype=torch.float64)
    moved = vector + torch.tensor([1e-6, 0.0], dtype=torch.float64)
    assert math.isclose(frame_error(moved, vector, scale, raised=(0,)), 1e-3, rel_tol=1e-4)
