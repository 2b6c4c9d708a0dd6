"""Bytewax wiring, which reads like a table of contents. No arithmetic and no `if` on data enters this room."""
