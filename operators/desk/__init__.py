"""Money: sizing, the gate, orders, the paper venue, the ledger and the audit chain, as one compiled reducer per account."""
