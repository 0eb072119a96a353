"""The page of a study's diagnosis: its tables, figures and template."""
