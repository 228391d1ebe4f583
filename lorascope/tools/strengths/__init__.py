"""What the stress tool is made of: its two forms, their tables and sheet."""
