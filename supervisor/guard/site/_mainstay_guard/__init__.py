"""The guard's own package: hooks (armed at start-up), report (what is written when something ends badly)."""
