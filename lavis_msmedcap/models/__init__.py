"""Networks: encoders, branches, objectives, the captioner, and the two models LAVIS registers."""
