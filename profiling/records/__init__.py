"""What was measured: immutable records, their files, and tables of them."""
