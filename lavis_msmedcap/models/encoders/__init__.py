"""The frozen image encoders and what freezing means."""
