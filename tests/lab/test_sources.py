"""Expected values follow the examples of sources.list(5)."""

from altmap.lab.sources import Source, parse_deb822, parse_one_line

DEB822 = """\
# a comment
Types: deb deb-src
URIs: https://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main contrib
# another comment
Signed-By: /usr/share/keyrings/example.gpg

Enabled: no
Types: deb
URIs: https://off.example/debian
Suites: sid
Components: main

Types: deb
URIs: https://keys.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc:def
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb-src
URIs: https://source.example/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
deb https://mirror.example/debian bookworm main contrib # comment
# deb https://off.example/debian bookworm main
deb-src https://source.example/debian bookworm main
deb [arch=amd64 signed-by=/etc/key.asc] https://tools.example/linux/debian bookworm stable
deb [ signed-by=/etc/key.asc ] https://mirror.example/debian-security bookworm-security main
"""


def test_deb822_stanzas_become_sources():
    first, second = parse_deb822(DEB822)
    assert first == Source(
        "https://mirror.example/debian/", ("main", "contrib"), "/usr/share/keyrings/example.gpg"
    )
    assert second.uri == "https://keys.example/debian-security"
    assert second.signed_by.splitlines()[-1] == " -----END PGP PUBLIC KEY BLOCK-----"


def test_one_line_entries_become_sources():
    assert [(s.uri, s.components, s.signed_by) for s in parse_one_line(ONE_LINE)] == [
        ("https://mirror.example/debian", ("main", "contrib"), ""),
        ("https://tools.example/linux/debian", ("stable",), "/etc/key.asc"),
        ("https://mirror.example/debian-security", ("main",), "/etc/key.asc"),
    ]


def test_only_debian_itself_has_suites():
    def suites(uri, *components):
        return Source(uri, components).suites(["trixie"])

    assert suites("https://mirror.example/debian/", "main") == ["trixie", "trixie-backports"]
    assert suites("https://mirror.example/debian-security", "main") == ["trixie-security"]
    assert suites("mirror+file:///etc/apt/mirrors/debian.list", "main") == [
        "trixie",
        "trixie-backports",
    ]
    assert suites("https://tools.example/linux/debian", "stable") == []
    assert suites("https://tools.example/apt", "main") == []
    assert suites("https://tools.example", "main") == []


def test_stanza_keeps_address_and_key_for_another_suite():
    (source,) = (s for s in parse_deb822(DEB822) if "security" in s.uri)
    (again,) = parse_deb822(source.stanza("trixie-security"))
    assert again == source
