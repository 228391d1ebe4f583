"""Pictures that are measured: which they are, and what networks see in them."""
