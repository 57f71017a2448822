"""Splits: stratified, complete, and the same for the same names."""

import pytest
import torch

from talweg.data import Arrays, hold_out
from talweg.data.split import stratified
from talweg.errors import UserError

X, Y = torch.arange(40.0).view(20, 2), torch.arange(20)


def test_a_split_is_stratified_fixed_and_complete():
    labels = torch.tensor([0] * 50 + [1] * 30 + [7] * 21)
    kept, held = stratified(labels, 20, "some", "split")
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(101))
    assert [(labels[held] == c).sum().item() for c in (0, 1, 7)] == [10, 6, 4]  # 9.9, 5.9, 4.2
    assert torch.equal(held, stratified(labels, 20, "some", "split")[1])
    assert not torch.equal(held, stratified(labels, 20, "other", "split")[1])
    for bad in (0, 101):
        with pytest.raises(UserError, match="held must be between 1 and 100 of 101 samples"):
            stratified(labels, bad)


def test_holding_out_of_regression_data():
    sets = hold_out(Arrays(X, X[:, 0]), 0.25, "r")
    assert sorted([*sets.train.y.tolist(), *sets.validation.y.tolist()]) == X[:, 0].tolist()
    assert len(sets.validation) == 5
    with pytest.raises(UserError, match="fraction must be above 0 and below 1, received 1"):
        hold_out(Arrays(X, Y), 1)
    with pytest.raises(UserError, match="at least 2 samples"):
        hold_out(Arrays(X[:1], Y[:1]), 0.5)
