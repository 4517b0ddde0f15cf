"""Providers' bills as they are transmitted: amounts, line items, token kinds, and which account belongs to which
connection.
"""
