"""One writer per on-disk format; each returns the facts of the images that it wrote."""
