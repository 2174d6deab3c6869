"""Measurements that wobble: times, as ratios within one run. What does not is in `tests/`."""
