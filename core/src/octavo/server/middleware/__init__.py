"""What every request passes on its way to a handler, each layer a plain ASGI application."""

from octavo.server.middleware.stack import add_middleware

__all__ = ["add_middleware"]
