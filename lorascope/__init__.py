"""Evaluate and troubleshoot trained LoRAs."""

__version__ = "0.1.0"
