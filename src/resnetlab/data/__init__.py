"""Pictures and labels: sources → arrays → loader."""
