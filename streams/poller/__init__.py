"""Polls the reports of OpenAI and other providers: usage, costs, models. One poller is active; the others stand by.

resources    declarations of what to poll: the built-in ones and a user's own file, in one format
providers    APIs of a user's own
pages        how an answer continues on further pages
params       query parameters as JQ, evaluated at each poll
schedule     which buckets to fetch now: pure
credentials  the API keys, read when they are needed
request      a request for one page, and its answer
client       one HTTP request, with retries
query        all pages of one query, or an error
extract      a response becomes complete buckets
published    what the topic already contains
publisher    buckets and cursors to Kafka, behind the fence
poll_run     one run over the resources: each fetched whole, compared, published
history      when each resource was last polled, and why it failed
agenda       when each resource is polled next: pure
service      the poller: elected (streams.leader_election), polling, standing by
"""
