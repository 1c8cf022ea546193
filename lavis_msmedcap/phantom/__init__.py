"""The embedded default: seeded image-caption phantoms in the real on-disk formats."""
