"""Pure mathematics: arrays in, numbers out."""
