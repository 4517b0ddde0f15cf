"""What providers bill, as they write it: amounts, line items, token kinds, and which account is whose."""
