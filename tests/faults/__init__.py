"""Faults of long runs, injected and counted. ``python -m tests.faults`` runs them in full and writes docs/faults.json.

A fault is a function of (count, seed, pool) that returns a dict: ``n`` faults were injected, ``held`` of them ended as
they must, and of ``control_n`` faults without the protection ``control_lost`` did not; other keys are counts beside.
"""
