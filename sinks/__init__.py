"""Where data leaves: ClickHouse and Parquet. Imports schemas only."""
