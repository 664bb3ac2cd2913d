"""Tell the requests of web pages from those of programs on this machine.

Any page can make the developer's browser send requests to 127.0.0.1, and after pointing its own
name there (DNS rebinding) read the answers, too. But the browser names the page's origin, how the
page relates to the address, and the host that the page asked for, and no page can change that.
"""

from collections.abc import Collection, Mapping


def hosts(port: int, *names: str) -> frozenset[str]:
    """Return the Host headers under which a server on this port of 127.0.0.1 may be asked."""
    suffix = "" if port == 80 else f":{port}"
    return frozenset(f"{name}{suffix}" for name in ("127.0.0.1", "localhost", *names))


def foreign(headers: Mapping[str, str], hosts: Collection[str]) -> str | None:
    """Return why a page of another site may be behind a request; None if none can be.

    The headers' names are in lower case. A port of its own makes a page another site's.
    """
    host = headers.get("host", "").lower()
    if host not in hosts:
        return f"the Host header is {host!r} and not one of {', '.join(sorted(hosts))}"
    origin = headers.get("origin", f"http://{host}")
    if origin != f"http://{host}":
        return f"it comes from a page of {origin}"
    site = headers.get("sec-fetch-site", "none")  # none: someone typed the address
    if site not in ("none", "same-origin"):
        return f"it comes from a page of another site (Sec-Fetch-Site: {site})"
    return None
