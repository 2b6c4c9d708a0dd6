"""Features of closed bars, one file per family. A feature is declared once; column, docs and tests follow from that."""
