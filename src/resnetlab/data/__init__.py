"""Images and labels: sources → arrays → loader."""
