"""Pages for people: scores, images, references and captions."""
