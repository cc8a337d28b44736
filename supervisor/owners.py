"""What a person calls the owner of a file. A leaf: standard library only."""


def called(uid: int) -> str:
    """The user with the number: "root (uid 0)", or "uid 1234" where nobody has it."""
    import pwd  # late: wanted for a complaint only

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
