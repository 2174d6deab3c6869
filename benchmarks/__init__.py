"""Measurements that wobble: times, as ratios within one run. What does not wobble is in `tests/`."""
