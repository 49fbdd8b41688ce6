"""How a replica learns whose connection a request came by: connections to replicas are shared by all clients."""

CLIENT = b"x-raypipe-client"
"""Header in which HAProxy tells a replica address and port of the client, in place of what that may say itself."""
