"""How Kafka is reached: what reading and writing share, which may not import each other.

Settings, errors as sentences, patience, partitions, and what makes a write count. No row, no payload and no decision on
data may enter; `sources` reads through these clients and `sinks` writes through them.
"""
