"""Real networks are few and loaded once."""

from typing import Any

import numpy as np
import pytest

import jaxplain as jxp


@pytest.fixture(scope="session")
def lite0() -> Any:
    """EfficientNet-Lite0 with its ImageNet weights."""
    from jaxplain.models import efficientnet_lite0

    return jxp.from_linen(*efficientnet_lite0.load())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
