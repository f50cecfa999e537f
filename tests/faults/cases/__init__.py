"""The faults, by what breaks. A module here adds its faults to the table when it is imported."""

import importlib
import pkgutil
from collections.abc import Mapping

from faults.table import FAULTS, Fault


def load() -> Mapping[str, Fault]:
    """All faults by name."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda one: one.name):
        importlib.import_module(f"{__name__}.{module.name}")
    return FAULTS
