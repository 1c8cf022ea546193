"""One file per metric family; each metric maps a `Corpus` to a `MetricResult`."""
