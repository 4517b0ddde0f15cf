"""Exports our rows in FOCUS (FinOps Open Cost and Usage Specification), the format that finance systems read.

columns  names, types and order of the columns, by version
rows     makes FOCUS rows: estimates of cost rows, lines of a bill: pure
shared   shares a bill's lines among the usage that they are for: pure
files    rows as CSV and Parquet
"""
