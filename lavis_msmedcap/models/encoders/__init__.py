"""The two frozen image encoders and what freezing means."""
