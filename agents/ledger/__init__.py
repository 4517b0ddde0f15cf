"""The ledger: the rows of the topics in SQL, for whoever reads (`cost`, console, exports, your own queries).

The topics stay the truth. The ledger is made out of them, holds the positions up to which it was made in the same
transactions as the rows, and is rebuilt automatically if it belongs to other topics. The component is `service.Ledger`;
it is not imported here, for commands that only read must start quickly.
"""
