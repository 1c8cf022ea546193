"""From files on disk to samples: readers, records, datasets, builders and the batch plan."""
