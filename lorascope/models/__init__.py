"""Heavy backends: base models, LoRAs merged into them, sampling, attention."""
