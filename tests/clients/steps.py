"""Steps of a client's test: each tells how it went, as a line of JSON, and the next one follows either way."""

import json


def tell(name, ok, value):
    print(json.dumps({"step": name, "ok": ok, "value": value}), flush=True)


def worded(error):
    lines = (str(error) or type(error).__name__).split("\n")
    return "%s: %s" % (type(error).__name__, lines[0])


def step(name, action):
    """Runs `action` and prints what became of it. Gives its result, or None."""
    try:
        result = action()
        value, result = result if isinstance(result, tuple) else (result, result)
        tell(name, True, value)
        return result
    except Exception as error:
        tell(name, False, worded(error))
