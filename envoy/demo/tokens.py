"""The demo's identity provider: it makes keys, publishes them as a JWKS, and signs tokens for its people.

``python tokens.py DIRECTORY`` writes ``jwks.json`` and, for each person, ``NAME.header`` (``curl -H @...``).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

if TYPE_CHECKING:
    from collections.abc import Mapping

ISSUER = "https://id.example.com/"
AUDIENCE = "expenses"
LIFETIME = 8 * 3600
"""Seconds for which a token is good, unless asked otherwise."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can log in."""

    name: str
    """The token's ``sub``."""
    title: str
    """For people to read."""
    roles: tuple[str, ...]
    claims: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What else the token says of them."""
    algorithm: str = "ES256"
    """Which key signs their token; the two kinds are there to show that both work."""


ADMINISTRATOR = Person("adam", "administrator", ("user", "admin"), algorithm="RS256")
SALES = Person("sally", "sales, EMEA", ("user",), {"department": "SALES", "region": "EMEA"})
EMEA_MANAGER = Person("emil", "manager, EMEA", ("manager",), {"region": "EMEA"})
NA_MANAGER = Person("nadia", "manager, NA", ("manager",), {"region": "NA"}, algorithm="RS256")

PEOPLE = (ADMINISTRATOR, SALES, EMEA_MANAGER, NA_MANAGER)


def _keys() -> dict[str, Any]:
    return {
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    }


@dataclass(frozen=True, slots=True)
class Issuer:
    """An identity provider with one key for each algorithm. The key's id is *prefix* and the algorithm."""

    prefix: str = "demo"
    keys: Mapping[str, Any] = field(default_factory=_keys)

    def token(self, person: Person, *, lifetime: float = LIFETIME, **changes: Any) -> str:
        """Sign a token for *person*; *changes* replaces claims, ``None`` leaves one out."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": person.name,
            "roles": list(person.roles),
            **person.claims,
        }
        claims |= {"iat": now, "exp": now + int(lifetime)} | changes
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(
            kept, self.keys[person.algorithm], person.algorithm, headers={"kid": self._id(person.algorithm)}
        )

    def jwks(self) -> str:
        """Write the public keys as JSON (RFC 7517)."""
        return json.dumps({"keys": [self._public(algorithm) for algorithm in self.keys]}, indent=2)

    def publish(self, file: Path) -> Path:
        """Write the key set to *file*."""
        file.write_text(self.jwks(), encoding="utf-8")
        return file

    def write_headers(self, directory: Path) -> dict[Person, Path]:
        """Make a file with an Authorization header for each person; nobody else may read it."""
        files = {person: directory / f"{person.name}.header" for person in PEOPLE}
        for person, file in files.items():
            file.touch(mode=0o600)
            file.write_text(f"authorization: Bearer {self.token(person)}\n", encoding="utf-8")
        return files

    def _id(self, algorithm: str) -> str:
        return f"{self.prefix}-{algorithm.lower()}"

    def _public(self, algorithm: str) -> dict[str, Any]:
        kind = ECAlgorithm if algorithm.startswith("ES") else RSAAlgorithm
        key = kind.to_jwk(self.keys[algorithm].public_key(), as_dict=True)
        return {**key, "kid": self._id(algorithm), "alg": algorithm, "use": "sig"}


def main() -> None:
    """Make keys and tokens for trying things out."""
    parser = argparse.ArgumentParser(
        description="Write jwks.json and a NAME.header for curl for each person."
    )
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    issuer = Issuer()
    issuer.publish(directory / "jwks.json")
    issuer.write_headers(directory)


if __name__ == "__main__":
    main()
