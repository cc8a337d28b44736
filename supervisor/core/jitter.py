"""A spread that a replay repeats: a number in [0, 1) made from names instead of from chance. Owns nothing else."""

from hashlib import blake2b


def unit(*parts: object) -> float:
    """A number in [0, 1), evenly spread over different *parts* and always the same for the same *parts* (their ``str``)."""
    text = "\0".join(str(part) for part in parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=6).digest(), "big") / 2**48
