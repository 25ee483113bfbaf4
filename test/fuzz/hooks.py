"""What schemathesis does on top of the documents: see test/fuzz/main.ts."""

import base64
import itertools
import os
from datetime import datetime

import schemathesis
from hypothesis import strategies as st

# Each account may send a few requests a minute only, so every request is of another one.
with open(os.environ["FUZZ_KEYS"], encoding="utf-8") as file:
    KEYS = itertools.cycle(file.read().splitlines())
HEADER = os.environ["FUZZ_HEADER"]
ADDRESSES = itertools.count(1)


@schemathesis.auth(refresh_interval=None)
class Keys:
    def get(self, case, ctx):
        return next(KEYS)

    def set(self, case, data, ctx):
        case.headers[HEADER] = data


@schemathesis.hook
def before_call(ctx, case, **kwargs):
    # The limits for senders without an account are for each address, which a proxy of the machine adds.
    number = next(ADDRESSES)
    case.headers["X-Forwarded-For"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def base58(data: bytes) -> str:
    letters = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(data, "big"), ""
    while number > 0:
        number, rest = divmod(number, 58)
        text = letters[rest] + text
    return text


def base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


PEER_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
TIMES = st.datetimes(min_value=datetime(2001, 1, 1), max_value=datetime(2999, 1, 1))
FORMS = {
    "ed25519-peer-id": st.binary(min_size=32, max_size=32).map(lambda key: "1" + base58(PEER_PREFIX + key)),
    "utc-milliseconds": TIMES.map(lambda time: time.isoformat(timespec="milliseconds") + "Z"),
    "pool-name": st.just("pool-a"),
    "account": st.from_regex(r"[0-9a-f]{64}", fullmatch=True) | st.emails(),
    "multiaddr": st.from_regex(r"/(dns4/[a-z]{1,9}|ip6/::1)/tcp/[1-9][0-9]{0,3}(/p2p/[A-Za-z0-9]{1,60})?", fullmatch=True),
    "history-cursor": st.builds(
        lambda time, end: time.isoformat() + "Z" + end,
        TIMES,
        st.just("") | st.integers(1, 2_147_483_647).map(lambda number: f",{number}"),
    ),
}
for name, strategy in FORMS.items():
    schemathesis.openapi.format(name, strategy)

SPELLINGS = [
    lambda multihash, codec: base58(multihash),
    lambda multihash, codec: "b" + base32(codec + multihash).lower(),
    lambda multihash, codec: "B" + base32(codec + multihash),
    lambda multihash, codec: "z" + base58(codec + multihash),
    lambda multihash, codec: "f" + (codec + multihash).hex(),
]
schemathesis.openapi.format(
    "cid",
    st.builds(
        lambda spell, codec, digest: spell(b"\x12\x20" + digest, b"\x01" + codec),
        st.sampled_from(SPELLINGS),
        st.sampled_from([b"\x55", b"\x70", b"\x71"]),
        st.binary(min_size=32, max_size=32),
    ),
)
