"""What LoRA files say: facts, growth over the epochs, change beside the base model."""
