"""Features of closed bars, one file per family. A feature is declared once; column, docs and tests follow from that.

To add one: write a kernel in its family's file and put `@feature(...)` over it. Prices are taken to be positive and
finite: the quality step before has seen to that.
"""

from operators.market.features import (  # in the order in which they are listed
    averages,
    bands,
    calendar,
    momentum,
    orderflow,
    returns,
    statistics,
    trend,
    volatility,
    volume,
)
from operators.market.features.operator import (
    Features,
    FeatureSet,
    compute_features,
    default_features,
    kernels,
    warm_kernels,
)
from operators.market.features.registry import FEATURES, Feature, Param, Request, catalogue, describe, expand, parse

FAMILIES = ("returns", "averages", "momentum", "bands", "volatility", "volume", "orderflow", "statistics", "calendar")

_declared = sorted(FEATURES.values(), key=lambda found: FAMILIES.index(found.family))
FEATURES.clear()
FEATURES.update((found.name, found) for found in _declared)

DEFAULT_FEATURES: tuple[str, ...] = default_features()
"""Every feature with its default parameters, every output."""

__all__ = [
    "DEFAULT_FEATURES", "FAMILIES", "FEATURES", "Feature", "FeatureSet", "Features", "Param", "Request", "averages",
    "bands", "calendar", "catalogue", "compute_features", "describe", "expand", "kernels", "momentum", "orderflow",
    "parse", "returns", "statistics", "trend", "volatility", "volume", "warm_kernels",
]
