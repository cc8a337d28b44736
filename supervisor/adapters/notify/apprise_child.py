"""What the process for apprise runs: a JSON object {urls, title, body, type} on standard input, the answer as exit code. Nothing of ours is in it."""

import json
import logging
import sys

NOT_DELIVERED, BAD_URL, NOT_INSTALLED = 3, 4, 5


def main() -> int:
    """0 when every service took it."""
    wish = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)  # its messages may hold what the URLs hold
    try:
        import apprise
    except ImportError:
        return NOT_INSTALLED
    sender = apprise.Apprise()
    if not all(sender.add(url) for url in wish["urls"]):
        return BAD_URL
    # Not interpreted: what a job wrote must not become an escape or an attachment.
    done = sender.notify(
        title=wish["title"], body=wish["body"], notify_type=wish["type"], body_format=apprise.NotifyFormat.TEXT, interpret_escapes=False
    )
    return 0 if done else NOT_DELIVERED


if __name__ == "__main__":
    sys.exit(main())
