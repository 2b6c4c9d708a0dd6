"""Money: sizing, the gate, orders, the paper venue or the reports of an external one, the ledger and the audit chain, as one compiled
reducer per account."""
