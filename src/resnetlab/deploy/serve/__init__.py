"""Serve a bundle over HTTP: server → routes → batching and protocol; deadlines, metrics. No torch is loaded here."""
