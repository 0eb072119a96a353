"""Training: config → optim → loop → evaluate, with checkpoints and logs."""
