"""Image and caption processors that LAVIS' registry holds."""
