"""Port's API as the sink uses it.

Modules, each building on those before it:

errors    what can go wrong, and whether asking again helps
token     the access token, renewed ahead of its end
rate      how fast we may ask, planned from what Port says of its limits
client    requests
api       the calls: bulk upsert, bulk delete, blueprints
"""
