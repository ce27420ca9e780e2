"""Callbacks of frameworks. Each module imports its framework, so import the one that you use.

`cascor_ingest.callbacks.keras`, `cascor_ingest.callbacks.lightning` and `cascor_ingest.callbacks.huggingface` have a class
`CascorCallback` each.
"""
