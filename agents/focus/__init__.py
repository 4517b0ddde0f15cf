"""Exports our rows in FOCUS (FinOps Open Cost and Usage Specification), the format that finance systems read.

columns  names, types and order of the columns, by version
rows     converts cost rows and statements to FOCUS rows: pure
files    rows as CSV and Parquet
"""
