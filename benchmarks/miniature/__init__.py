"""Measures the embedded base model, independently of the program."""
