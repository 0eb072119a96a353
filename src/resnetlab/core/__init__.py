"""The ground floor: errors, files, randomness, statistics, settings, records as JSON, and the environment."""
