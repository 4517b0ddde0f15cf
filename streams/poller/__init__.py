"""Polls what OpenAI itself reports: usage, costs, models. One active poller; the others stand by.

resources    what to ask for, declared: the built-in ones and a user's own file, in one shape
params       query parameters as JQ, evaluated at each poll
schedule     which buckets to ask for now: pure
credentials  the keys to ask with, read when they are needed
client       one HTTP request, with retries
query        all pages of one query, or nothing
extract      a response becomes complete buckets
published    what the topic already holds
publisher    buckets and cursors to Kafka, behind the fence
poll_run     one run over the resources: each fetched whole, compared, published
agenda       when each resource is polled next: pure
service      the poller: elected (streams.leader_election), polling, standing by
"""
