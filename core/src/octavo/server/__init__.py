"""The HTTP server: OpenAI's and Anthropic's interfaces over engines that run beside it."""
