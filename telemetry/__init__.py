"""What the platform says of itself while it runs: metrics for Prometheus, structured logs, a health page.

Imports schemas only, so that sources, sinks and dataflows may all use it; nothing in this room decides anything, and no
row depends on it. `operators` may not import it.
"""
