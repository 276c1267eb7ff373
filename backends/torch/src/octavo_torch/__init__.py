"""What Octavo's backends on torch share, and the backend `torch` itself."""
