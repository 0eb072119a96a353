"""What depth does to a network: measured, judged by printed thresholds, kept as records."""
