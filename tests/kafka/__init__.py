"""A real Apache Kafka for the tests: one KRaft node on loopback in a temporary folder, fetched by Maven."""
