"""What the documents say beyond OpenAPI, for schemathesis.

A response with `x-newline-separated` is one document a line. A 500 is a failure of ours unless its message is one that
the reference gives to such a request.
"""

import json
import re

import schemathesis

# The reference's 500s for requests that the cluster or its daemon cannot carry out; fixtures hold one of each.
KNOWN_FAILURES = [
    r"crdt consensus component cannot remove peers",
    r"cluster\.replication_factor_\w+ .*",
    r"not enough peers to allocate CID\..*",
    r"pin\.ExpireAt set before current time",
    r"cannot repin a CID which is already pinned in \w+ mode .*",
    r"IPFS error \((resolve|pin/|block/)[^)]*\)\. Code: 500\. Message: .*",
    # peers that are nowhere
    r"routing: not found|context deadline exceeded|dial to self attempted|failed to dial.*|no addresses",
    # uploads with stream-channels=false
    r"hash function name not known|unrecognized chunker option: .*|chunker .*|bad CID Version: .*|.*chunk.*",
    r"missing file path or URL, can't create filestore reference",
    r"multipart: .*|unexpected EOF|.*EOF.*",
    r"shards? .*|cannot unpin a shard.*|.*shard.*",
]


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """One document of a stream, or a list of them: what `documents` makes of an answer."""
    for item in raw_schema["paths"].values():
        for operation in item.values():
            responses = operation.get("responses", {}) if isinstance(operation, dict) else {}
            for response in responses.values():
                if response.get("x-newline-separated"):
                    media_type = response["content"]["application/json"]
                    one = media_type["schema"]
                    media_type["schema"] = {"anyOf": [one, {"type": "array", "items": one}]}


@schemathesis.deserializer("application/json")
def documents(context, response):
    """One document, or a list of those in the lines of a stream."""
    text = response.content.decode("utf-8")
    # splitlines would also end a line inside a string, at U+0085
    lines = text.removesuffix("\n").split("\n") if text else []
    # a stream that fails before its first document has none
    if len(lines) != 1:
        return [json.loads(line) for line in lines]
    return json.loads(text)


@schemathesis.check
def no_failure_of_ours(context, response, case):
    """A server error must be one that the reference gives too."""
    if response.status_code < 500:
        return
    try:
        document = json.loads(response.content)
        message = document.get("message") or document["error"]["reason"]
    except (ValueError, KeyError, AttributeError):
        raise AssertionError("a failure without its document: %r" % response.content[:300])
    if not any(re.fullmatch(pattern, message, re.S) for pattern in KNOWN_FAILURES):
        raise AssertionError("a failure that no fixture has: %r" % message)
