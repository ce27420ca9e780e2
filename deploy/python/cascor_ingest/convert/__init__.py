"""Runs that other tools have recorded, as messages for `cascor-ingest import`."""
