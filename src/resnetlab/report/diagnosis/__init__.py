"""The page of a diagnosis: its tables, figures and template."""
