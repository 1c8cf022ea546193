"""Medical phantoms: CT, MRI, ultrasound and radiographs with at most one lesion."""
