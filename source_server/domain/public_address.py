"""Which addresses the server calls at a scientist's wish: those of the public internet, and what the operator adds."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Said here, and not left to `is_global`, which has changed from one Python release to the next.
_REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this machine
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' own (CGNAT)
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, and the clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # Teredo and other protocols' own
        "2001:db8::/32",
        "3fff::/20",
    )
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  #: all that was ever given out of IPv6
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def may_call(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Whether the server may connect there; an IPv4 address inside an IPv6 one is judged as what it is."""
    inner = _inside(address)
    if any(inner.version == net.version and inner in net for net in allowed):
        return True
    if isinstance(inner, ipaddress.IPv6Address) and inner not in _GLOBAL_UNICAST:
        return False
    return not any(inner.version == net.version and inner in net for net in _REFUSED)


def _inside(address: Address) -> Address:
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return ipaddress.IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
    return address
