"""Benchmarks: what the program and its embedded model can do, measured."""
