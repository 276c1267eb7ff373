"""How much a request may ask of the grammar engine, and why not more."""

from __future__ import annotations

__all__ = [
    "COMPILE_STACK_BYTES",
    "MAX_CHOICES",
    "MAX_GBNF_RULES",
    "MAX_LEXER_STATES",
    "MAX_REGEX_LENGTH",
    "MAX_TEXT_BYTES",
    "TIDY_SPACE",
]

TIDY_SPACE = r"( |\n[ \t]{0,20})?"
"""White space between the tokens of JSON: as people and programs write it, with an indentation.
JSON allows any amount, and some models never stop."""

MAX_TEXT_BYTES = 256 * 1024
"""Of a schema, a grammar, a structural tag or all choices together. Compiling holds up every other
request: the worst text of this size takes about a second, and a schema in use 1 to 20 ms."""

MAX_REGEX_LENGTH = 16 * 1024
"""Characters. An automaton can grow faster than its text, and a regex has no other bound."""

MAX_CHOICES = 10_000
"""As many strings as compile in about 0.1 s."""

MAX_GBNF_RULES = 1_000
"""The converter to Lark takes time by the square of their number: 0.2 s for so many."""

MAX_LEXER_STATES = 50_000
"""Of one request, at 1 to 2 kB each; one that needs more ends. llguidance's own limit is 250,000,
by which a single hostile regex could take half a gigabyte."""

COMPILE_STACK_BYTES = 256 * 1024 * 1024
"""llguidance follows references and rules by recursion, and a chain of some 2,000 overflows a stack
of 8 MB, which ends the process. The longest chain in MAX_TEXT_BYTES fits into this; it is address
space, of which only what is used becomes memory."""
