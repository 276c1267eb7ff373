"""Schemas that tests hold answers to: every feature, and bounded, so that random weights end."""

from __future__ import annotations

SHORT = {"type": "string", "maxLength": 4}
DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}


def closed(properties, required=None, **more):
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
        **more,
    }


SCHEMAS = {
    "nested objects": closed({"user": closed({"name": SHORT, "at": closed({"x": DIGIT})})}),
    "optional properties": closed({"a": DIGIT, "b": {"type": "boolean"}}, required=["b"]),
    "enum": {"enum": ["red", "grün", 3, None, True, {"a": [1]}]},
    "const": closed({"kind": {"const": "circle"}, "r": DIGIT}),
    "array with bounds": {"type": "array", "items": DIGIT, "minItems": 2, "maxItems": 4},
    "prefix items": {
        "type": "array",
        "prefixItems": [{"type": "boolean"}, {"enum": ["a", "b"]}],
        "items": False,
        "minItems": 2,
    },
    "array of objects": {
        "type": "array",
        "items": closed({"id": DIGIT}),
        "minItems": 1,
        "maxItems": 2,
    },
    "$ref": {
        "$defs": {"point": closed({"x": DIGIT, "y": DIGIT})},
        **closed({"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}}),
    },
    "recursive $ref": {
        "$defs": {
            "tree": {
                "anyOf": [
                    DIGIT,
                    {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 1},
                ]
            }
        },
        "$ref": "#/$defs/tree",
    },
    "anyOf": {"anyOf": [DIGIT, {"type": "null"}, closed({"s": SHORT})]},
    "allOf": {"allOf": [closed({"a": DIGIT}), {"properties": {"a": {"minimum": 5}}}]},
    "several types": closed({"v": {"type": ["integer", "null"], "minimum": 1, "maximum": 30}}),
    "pattern": closed({"zip": {"type": "string", "pattern": "^[0-9]{5}(-[0-9]{4})?$"}}),
    "formats": closed({"day": {"type": "string", "format": "date"}}),
    "string lengths": {"type": "string", "minLength": 2, "maxLength": 6},
    "integers": {"type": "integer", "minimum": -12, "exclusiveMaximum": 130},
    "numbers": {"type": "number", "minimum": 0.5, "maximum": 7.25},
    "multiples": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 70},
    "unicode": closed({"größe": {"enum": ["klein", "groß", "巨大", "🙂"]}, "名": SHORT}),
    "escapes": {"enum": ['a "quoted" \\ text', "tab\tnewline\n", "\u2028/</script>"]},
    "map": {
        "type": "object",
        "additionalProperties": DIGIT,
        "patternProperties": {"^x_": {"type": "boolean"}},
        "maxProperties": 0,
    },
}
REFUSED = {
    "an unknown type": ({"type": "objekt"}, "objekt"),
    "an unsupported keyword": ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    "not": ({"not": {"type": "string"}}, "not"),
    "nothing fits": ({"type": "integer", "minimum": 3, "maximum": 1}, "greater than maximum"),
    "an empty enum": ({"enum": []}, "empty"),
    "a reference elsewhere": ({"$ref": "https://example.com/s.json"}, "example.com"),
    "a missing reference": ({"$ref": "#/$defs/none"}, "none"),
    "a reference to itself": ({"$ref": "#"}, "no token"),
    "look-ahead in a pattern": ({"type": "string", "pattern": "(?=a)b"}, "look"),
    "an unknown format": ({"type": "string", "format": "zip"}, "zip"),
    "a huge allOf": (
        {"allOf": [{"properties": {f"a{i}": SHORT}} for i in range(3000)]},
        "too large",
    ),
}
