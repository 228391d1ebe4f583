"""What the held-out loss is made of: images, questions, answers."""
