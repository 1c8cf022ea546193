"""Several data sets of one kind in a run: further names for a registered builder.

::

    datasets:
      ward_a: {builder: caption_table, build_info: {table: a.csv}}
      ward_b: {builder: caption_table, build_info: {table: b.csv}}
"""

from __future__ import annotations

from typing import Any

from lavis.common.registry import registry

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.datasets.builders.base import MedCapBuilder


def register_name(name: str, builder: str = "caption_table") -> type[MedCapBuilder]:
    """Registers a builder of this package under one more name, its own in logs and predictions.

    LAVIS finds builders by the name of their section, so that a name serves everywhere. Doing it
    twice does nothing.

    Args:
        name: The new name.
        builder: Name of a builder of this package.

    Returns:
        The registered class.

    Raises:
        ConfigError: If there is no such builder, or the name is that of another one.
    """
    names: dict[str, Any] = registry.mapping["builder_name_mapping"]
    base, present = names.get(builder), names.get(name)
    if base is None or not issubclass(base, MedCapBuilder):
        ours = sorted(n for n, cls in names.items() if issubclass(cls, MedCapBuilder))
        raise ConfigError(
            [f"datasets.{name}.builder is {builder!r}; expected one of {', '.join(ours)}"]
        )
    if present is base or (present is not None and present.__bases__ == (base,)):
        return present
    if present is not None:
        raise ConfigError(
            [
                f"datasets.{name}.builder is {builder}, but {name} is a data set of its own; take "
                "another name"
            ]
        )
    attributes = {"NAME": name, "__module__": base.__module__, "__doc__": base.__doc__}
    cls = type(base.__name__, (base,), attributes)
    registry.register_builder(name)(cls)
    return cls
