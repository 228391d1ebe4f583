"""The LoRA trainer: it writes run directories and never imports its examiner."""
