"""Our rows as FOCUS rows (FinOps Open Cost and Usage Specification), the form finance systems read.

columns  names, types and order of the columns, by version
rows     cost rows and statements become FOCUS rows: pure
files    rows as CSV and Parquet
"""
