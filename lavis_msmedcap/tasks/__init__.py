"""Tasks that LAVIS' registry holds."""
