"""Use what was trained: load it, predict with it, export, verify, serve and share it."""
