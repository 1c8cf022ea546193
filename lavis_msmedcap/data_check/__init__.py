"""Whether a data set is fit to train on: every image decoded, dirt counted, leaks between splits.

records ─▶ scan (decode in parallel, cached) ─▶ duplicates, leaks, captions ─▶ findings
        ─▶ text, JSON, HTML, or a clean manifest
"""
