"""Phrases that readers must not meet, with what to say instead, and where they are found."""

import ast
import re

#: A regular expression to the plain words. Case does not matter, and a space is any white space.
INSTEAD = {
    r"of (?:one's|your|our) own": "a name for what it is, such as host",
    r"(?:stands? )?in (?:the|its|their|nobody's) way": "blocker, or what prevents it",
    r"(?:the )?house|rooms?, by room|room by room": "architecture, package",
    r"the way of the data": "data flow",
    r"on paper": "synthetic boot state",
    r"kernel (?:is dead|died|dies)|dead kernel": "the kernel crashes (modelled fault)",
    r"kernel lives|lives on": "keeps running",
    r"(?:say|says|said) no": "refuses, vetoes",
    r"(?:nobody|somebody|whoever|anybody|everybody)": "passive, or the name of who it is",
    r"nothing (?:is )?(?:behind it|there)": "not backed",
    r"what there is": "the thing itself",
    r"(?:the )?books balance|the books": "accounting invariants hold",
    r"without end": "indefinitely",
    r"withh(?:e|o)lds?": "fake-offline (PageOffline)",
    r"withdrawn": "HWPoison",
    r"in the buddy's hands": "free",
    r"(?:give|gives|given) to the buddy": "freed to the buddy allocator",
    r"who did what": "event log",
    r"conversation": "driver protocol log",
    r"ledger": "memory accounting",
    r"(?:take|takes|taken|took) (?:it |them |all |everything )?back": "rolls back, returns",
    r"surprises?": "prediction mismatch",
    r"bought": "requested",
    r"(?:comes|came) to": "is, results in",
    r"what was said": "claims",
    r"what is safe": "driver × policy matrix",
    r"what went wrong": "known bugs",
    r"look at it": "report",
    r"one beside the other": "comparison",
    r"how it (?:comes|goes)": "add mechanism, remove mechanism",
    r"who asks": "drivers that set MHP_MEMMAP_ON_MEMORY",
    r"(?:is|are) heard|hears?|wishes": "is notified, requests",
    r"can look": "further observations",
    r"worth (?:its|their) own sentence": "key",
    r"(?:has|have) learnt": "common misconceptions",
}
_ANY = [
    (re.compile(rf"\b(?:{phrase})\b".replace(" ", r"\s+"), re.IGNORECASE), say)
    for phrase, say in INSTEAD.items()
]
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")


def found(text):
    """Return every phrase in a text, each with what to say instead."""
    return [
        f"{' '.join(match[0].split())!r}: say {say}"
        for pattern, say in _ANY
        for match in pattern.finditer(text)
    ]


def prose(page, quoted=()):
    """Return a page without code, without what programs print, and without what it quotes."""
    for text in quoted:
        page = page.replace(text, "")
    return _CODE.sub("", _FENCE.sub("", page))


def strings(source):
    """Yield the string constants of Python source, docstrings and parts of f-strings among them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
