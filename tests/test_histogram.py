"""Histograms of times: the figures alone."""

from jobqueue.histogram import DecayingHistogram


def test_a_time_below_zero_counts_as_zero_everywhere():
    histogram = DecayingHistogram()
    for ms in (-3_600_000, 5, -1):
        histogram.add(ms)
    assert histogram.all_ms == 5
    assert histogram.below([0, 10]) == [2, 3, 3]
    assert histogram.quantile(0.5) == 0


def test_each_value_is_below_its_bound_and_the_sum_is_exact_while_none_is_left_out():
    histogram = DecayingHistogram()
    for ms in (0, 3, 100, 1_000):
        histogram.add(ms)
    assert histogram.all_ms == 1_103
    assert histogram.below([3, 127, 10_000]) == [2, 3, 4, 4]
    assert histogram.quantile(1.0) >= 1_000
