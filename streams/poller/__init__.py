"""Polls what OpenAI itself reports: usage, costs, models. One active poller; the others stand by.

resources  what to ask for, declared: the built-in ones and a user's own file, in one shape
params     query parameters as JQ, evaluated at each poll
windows    which buckets to ask for now: pure
client     one HTTP request, with retries
query      all pages of one query, or nothing
extract    a response becomes complete buckets
ledger     what the topic already holds
publish    buckets and cursors to Kafka, behind the fence
engine     one round over all resources
service    the poller: elected (streams.leader), polling, standing by
"""
