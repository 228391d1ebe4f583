"""Foreign formats in and out; numpy and Pillow only, never torch."""
