"""The parts of ``tools/fuzz_data.py``: what is damaged, how, and what may come of it."""
