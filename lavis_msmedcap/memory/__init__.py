"""How much memory a configuration needs, by part, and what to change until it fits."""
