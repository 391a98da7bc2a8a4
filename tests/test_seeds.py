"""Draws are a contract: the same key gives the same numbers for ever, another key others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicenn.errors import InputError
from spicenn.seeds import Purpose, generator

part = st.integers(0, 2**32 - 1)
key = st.tuples(st.sampled_from(Purpose), part, part, part, part, part)


def draw(seed, key, **more):
    names = ("chip", "trial", "layer", "row", "column")
    return generator(seed, key[0], **dict(zip(names, key[1:], strict=True)), **more).integers(
        2**63, size=4
    )


def test_golden_draws():
    # Changing these numbers changes every chip ever recorded: never regenerate them.
    rng = generator(2024, Purpose.PROGRAMMING_ERROR, chip=7, layer=1, row=2, column=3)
    np.testing.assert_array_equal(rng.standard_normal(3), GOLDEN)
    assert [(p.name, int(p)) for p in Purpose] == [
        ("PROGRAMMING_ERROR", 1),
        ("READ_NOISE", 2),
        ("THERMAL_NOISE", 3),
        ("PROBES", 4),
        ("TRAINING", 5),
        ("CYCLE_TO_CYCLE", 6),
        ("GRADIENT", 7),
        ("CORRELATED", 8),
        ("WAFER", 9),
        ("STUCK", 10),
        ("DEAD_LINES", 11),
        ("MISMATCH", 12),
        ("DRIFT", 13),
        ("SHOT_NOISE", 20),
        ("FLICKER_NOISE", 21),
        ("RTN", 22),
        ("TRANSIENT_NOISE", 23),
        ("TIA_OFFSET", 30),
        ("ADC_STEPS", 31),
        ("DAC_STEPS", 32),
        ("NEURON_OFFSET", 33),
        ("COMPARATOR", 34),
        ("ADC_GAIN", 35),
        ("ADC_OFFSET", 36),
        ("DAC_GAIN", 37),
        ("DAC_OFFSET", 38),
        ("SPIKES", 40),
        ("CELL_LAW", 41),
        ("SPIKING_NEURON", 42),
        ("HYSTERESIS", 43),
        ("EDGE_THRESHOLD", 50),
        ("TWIN_THRESHOLD", 51),
        ("EDGE_TRANSCONDUCTANCE", 52),
        ("TWIN_TRANSCONDUCTANCE", 53),
        ("EDGE_BIAS", 54),
        ("EDGE_LEAKAGE", 55),
        ("OUTPUT_OFFSET", 56),
        ("EDGE_START", 57),
        ("UPDATE_NOISE", 58),
        ("OUTPUT_NOISE", 59),
        ("TASK_ORDER", 60),
        ("DESYNCHRONOUS", 61),
    ]


GOLDEN = [0.16793949676788378, 0.17511934949420754, -1.853971037466682]


@given(st.integers(0, 2**130), key, key)
def test_keys_tell_generators_apart(seed, a, b):
    assert np.array_equal(draw(seed, a), draw(seed, a))
    assert np.array_equal(draw(seed, a), draw(seed, b)) == (a == b)


@given(key, st.integers(1, 2**32 - 1))
def test_a_second_use_is_another_read(a, use):
    assert not np.array_equal(draw(1, a), draw(1, a, use=use))
    assert np.array_equal(draw(1, a), draw(1, a, use=0))


def test_first_samples_do_not_depend_on_how_many_follow():
    few = generator(1, Purpose.READ_NOISE, chip=3).standard_normal((5, 8))
    many = generator(1, Purpose.READ_NOISE, chip=3).standard_normal((50, 8))
    np.testing.assert_array_equal(few, many[:5])


@pytest.mark.parametrize("bad", [-1, 2**32, 1.0, True, "3"])
def test_a_part_that_would_alias_is_refused(bad):
    with pytest.raises(InputError, match="chip"):
        generator(1, Purpose.READ_NOISE, chip=bad)


@pytest.mark.parametrize("bad", [-1, None, 0.5, True])
def test_a_seed_must_be_a_non_negative_integer(bad):
    with pytest.raises(InputError, match="seed"):
        generator(bad, Purpose.READ_NOISE)
