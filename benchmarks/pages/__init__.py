"""What benchmarks/tables.py puts into the documentation."""
