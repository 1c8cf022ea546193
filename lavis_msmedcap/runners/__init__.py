"""The runner that LAVIS' registry holds."""
