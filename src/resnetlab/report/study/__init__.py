"""The page of a study: its tables, figures and template."""
