"""What a training logged, read and described."""
