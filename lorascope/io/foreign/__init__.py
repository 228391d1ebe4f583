"""What other trainers leave behind: their names, folders, prompts and settings, in our words."""
