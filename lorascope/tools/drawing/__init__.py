"""What a grid and the stress curve draw with: options, prompts, cells, and the drawing itself."""
