"""What flows: the tables, records, topics, policy, money, ids, codecs and DDL of Penstock.

Nothing in this room imports another room of the project, and nothing in it reads a clock, a random
number or the environment. Every other room may import it.
"""
