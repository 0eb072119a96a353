"""The page of a training run: its tables, figures and template."""
