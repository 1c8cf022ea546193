"""Image files to pixels, and pixels to the views that the encoders see."""
