"""The population is learnt from a study: how far chips differ, and nothing from failed ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spicenn.compiler import Design
from spicenn.compiler.embedded import embed
from spicenn.errors import CalibrationError, DesignError, Status
from spicenn.surrogate import Surrogate, fit
from tests.surrogate.conftest import compiled, dataset, inputs, mlp


def test_a_faithful_study_confirms_the_technology(surrogate: Surrogate) -> None:
    assert all(0.75 < scale < 1.3 for scale in surrogate.spread_scale.values())
    assert (surrogate.chips, surrogate.failed) == (8, 0)


def test_twice_the_variation_is_found() -> None:
    x = inputs(24, 1)
    honest = compiled(mlp(), inputs(64, 0), g_min=20e-6)
    # The record claims the honest design, its chips vary twice as much.
    ds = dataset(honest.with_technology(programming_error=0.1), x, chips=12)
    ds["design"] = (("byte",), embed(honest))
    found = fit(ds.drop_vars("design").assign(design=ds["design"]))
    assert all(1.5 < scale < 2.5 for scale in found.spread_scale.values())


def test_a_shift_that_all_chips_share_is_found() -> None:
    x = inputs(24, 1)
    claimed = compiled(mlp(), inputs(64, 0), g_min=20e-6)
    ds = dataset(claimed.with_technology(r_bitline=60.0, r_wordline=60.0), x, chips=12)
    ds = ds.drop_vars("design").assign(design=(("byte2",), embed(claimed)))
    mean = ds["output"].values.mean(axis=(0, 1))
    plain = Surrogate(
        claimed,
        {
            tile.name: torch.zeros(len(tile.g_target), tile.g_target.shape[1] // 2)
            for tile in claimed.tiles
        },
        {layer.name: 1.0 for layer in claimed.layers},
        0.0,
        0,
        0,
        {},
    )
    before = np.abs(plain.module()(torch.as_tensor(x)).numpy() - mean).mean()
    after = np.abs(fit(ds).module()(torch.as_tensor(x)).numpy() - mean).mean()
    assert after < 0.7 * before


def test_failed_chips_are_left_out_and_counted(design: Design) -> None:
    ds = dataset(design, inputs(24, 1))
    broken = ds.copy(deep=True)
    broken["output"][2] = np.nan
    broken["status"][2] = int(Status.NOT_CONVERGED)
    broken["output"][5] = np.nan  # finished, but useless
    found = fit(broken)
    assert (found.chips, found.failed) == (6, 2)
    assert all(np.isfinite(scale) for scale in found.spread_scale.values())
    same = fit(ds.isel(chip=[0, 1, 3, 4, 6, 7]))
    assert found.spread_scale == same.spread_scale


def test_a_study_without_chips_is_refused(design: Design) -> None:
    ds = dataset(design, inputs(8, 1), chips=2)
    ds["status"][0] = int(Status.CRASH)
    with pytest.raises(CalibrationError, match="1 of 2 chips"):
        fit(ds)
    with pytest.raises(DesignError, match="no design"):
        fit(ds.drop_vars("design"))
    with pytest.raises(CalibrationError, match="'status'"):
        fit(ds.drop_vars("status"))
    swept = ds.expand_dims(r_wordline=[1.0, 2.0])
    swept.attrs["sweep"] = {"r_wordline": [1.0, 2.0]}
    with pytest.raises(CalibrationError, match="swept"):
        fit(swept.assign(design=ds["design"]))
