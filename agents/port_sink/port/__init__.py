"""Port's API as the sink uses it.

Modules, each building on those before it:

errors    failures, and whether a retry helps
token     the access token, renewed before it expires
rate      the rate limiter, which follows Port's rate-limit headers
client    requests
api       the calls: bulk upsert, bulk delete, blueprints, pages
integration  the sink as an integration among Port's data sources
"""
