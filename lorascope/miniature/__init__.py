"""The drawn world, and the small base model that knows it."""
