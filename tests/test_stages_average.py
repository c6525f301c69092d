"""The mean of the weights over the steps of a run."""

import numpy as np
import pytest
import torch

from drive.core.errors import CheckpointError
from drive.stages.average import STATE, WeightAverage


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(3, 2, generator=generator)), torch.nn.Parameter(torch.randn(4, generator=generator).bfloat16())]


def move(weights: list[torch.nn.Parameter], seed: int) -> None:
    with torch.no_grad():
        for weight, value in zip(weights, parameters(seed)):
            weight.copy_(value)


def test_step_t_weighs_t():
    weights = [torch.nn.Parameter(torch.full((2,), 100.0))]  # where the run began: not part of the mean
    average = WeightAverage(weights)
    for step, value in enumerate((1.0, -2.0, 5.0), start=1):
        with torch.no_grad():
            weights[0].fill_(value)
        average.add(step)
    np.testing.assert_allclose(average.mean[0].numpy(), (1 * 1.0 + 2 * -2.0 + 3 * 5.0) / 6, rtol=1e-6)


def test_half_precision_does_not_swallow_small_steps():
    weights = [torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))]
    average = WeightAverage(weights)
    for step in range(1, 2001):
        with torch.no_grad():
            weights[0].fill_(1.0 if step % 2 else 1.0078125)  # the neighbour of 1 in bfloat16
        average.add(step)
    assert abs(float(average.mean[0]) - 1.00390625) < 1e-5


def test_applied_holds_the_mean_inside_and_the_weights_outside():
    weights = parameters(1)
    average = WeightAverage(weights)
    average.add(1)
    first = [w.detach().clone() for w in weights]
    move(weights, 2)
    live = [w.detach().clone() for w in weights]
    with pytest.raises(RuntimeError, match="stop"), average.applied():
        assert all(torch.equal(w, f) for w, f in zip(weights, first))
        raise RuntimeError("stop")
    assert all(torch.equal(w, v) for w, v in zip(weights, live))
    average.finish()
    assert all(torch.equal(w, f) for w, f in zip(weights, first))


def test_a_resumed_mean_goes_on_to_the_same_bits(tmp_path):
    whole, split = parameters(), parameters()
    one = WeightAverage(whole)
    two = WeightAverage(split)
    for step in (1, 2, 3, 4, 5):
        move(whole, step)
        one.add(step)
        if step == 3:
            move(split, 99)  # a checkpoint's policy holds the mean, not the weights
            two = WeightAverage(split, tmp_path)
            assert all(torch.equal(w, v) for w, v in zip(split, parameters(2)))
        move(split, step)
        two.add(step)
        if step == 2:
            two.save(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(one.mean, two.mean))


def test_the_mean_of_another_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=STATE):
        WeightAverage(parameters(), tmp_path)
    WeightAverage(parameters()).save(tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        WeightAverage(parameters()[:1], tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        WeightAverage(parameters()[::-1], tmp_path)
