"""One reader per on-disk format; each yields `MedCapRecord`s."""
