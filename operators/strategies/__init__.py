"""The rule language, its compiler, the built-in strategies and the orchestrator that runs several at once."""
