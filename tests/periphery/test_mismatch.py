"""Pelgrom's law in the periphery: a pair's offset from its transistors' area."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from spicenn.periphery.mismatch import draw_offset
from spicenn.technology import Comparator, Neuron, Tia


@pytest.mark.parametrize("kind", [Tia, Comparator, Neuron])
def test_a_pairs_offset_is_two_transistors_mismatch_beside_its_own(kind):
    """√2 A_VT / √(W L): 10,000 drawn, Kolmogorov-Smirnov at 1 %; four times the area is half."""
    spec = kind(a_vt=5e-9, width=4e-6, length=1e-6)
    sigma = math.sqrt(2) * 5e-9 / 2e-6  # 3.5 mV
    assert spec.offset_sigma == pytest.approx(sigma, rel=1e-12, abs=0)
    drawn = draw_offset(spec, np.random.default_rng(0), (10_000,))
    assert stats.kstest(drawn, stats.norm(0, sigma).cdf).pvalue > 0.01
    large = kind(a_vt=5e-9, width=16e-6, length=1e-6)
    assert large.offset_sigma == pytest.approx(sigma / 2, rel=1e-12, abs=0)
    both = kind(a_vt=5e-9, width=4e-6, length=1e-6, offset=3e-3)
    assert both.offset_sigma == pytest.approx(math.hypot(3e-3, sigma), rel=1e-12, abs=0)
    assert not draw_offset(kind(), np.random.default_rng(0), (10,)).any()
