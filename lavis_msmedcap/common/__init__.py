"""Ground layer: paths, errors, distributed helpers and the generic configuration checker."""
