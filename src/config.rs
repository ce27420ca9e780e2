//! Gathers the sections of the configuration from all their sources.
