"""E-mail: plain text, one thread per incident, a digest when many wait. The session is bounded as a whole, not per reply."""

import contextlib
import hashlib
import html
import smtplib
import socket
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from supervisor.adapters.notify.channel import Channel, Deadline, connect, in_words, with_tls
from supervisor.adapters.notify.sender import Clock, Failed
from supervisor.adapters.notify.text import Body, body_text, headline, link, one_line, paragraphs, read_body, story, subject
from supervisor.core.records import Notification, NotificationKind
from supervisor.core.settings import EmailReceiver, Layout

SUBJECT_CHARS = 200
SESSION_MAX_BYTES = 256 * 1024  # of the server's replies
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class EmailSender:
    """Delivered when the server has taken the message for at least one recipient."""

    batch_max = 50
    repost_s = None
    pause_s = 0.0

    def __init__(self, receiver: EmailReceiver, clock: Clock) -> None:
        for address in (receiver.sender, *receiver.to):
            if not address.isprintable() or "@" not in address:
                raise ValueError(f"{address!r} is not a mail address")
        if not receiver.to:
            raise ValueError("it has no recipients")
        if receiver.password is not None and receiver.tls == "none" and receiver.host not in _LOOPBACK:
            raise ValueError("a password would go over the network in clear; set tls: starttls or tls: tls")
        self._receiver = receiver
        self._clock = clock

    def deliver(self, batch: Sequence[Notification], _openings: Mapping[int, Notification]) -> Failed | None:
        place = f"smtp://{self._receiver.host}:{self._receiver.port}"
        try:
            self._send(message(batch, self._receiver))
        except smtplib.SMTPRecipientsRefused as err:
            codes = ", ".join(sorted({str(code) for code, _ in err.recipients.values()}))
            return Failed(f"{place}: refused all recipients ({codes})")
        except smtplib.SMTPResponseException as err:
            return Failed(f"{place}: answered {err.smtp_code} {self._without_secrets(err.smtp_error)}")
        except smtplib.SMTPServerDisconnected as err:
            return Failed(f"{place}: {in_words(err.__context__) if isinstance(err.__context__, OSError) else 'closed the connection'}")
        except smtplib.SMTPException as err:
            return Failed(f"{place}: {type(err).__name__}: {self._without_secrets(str(err))}")
        except OSError as err:
            return Failed(f"{place}: {in_words(err)}")
        return None

    def repost(self, standing: Sequence[Notification]) -> Failed | None:
        return self.deliver(standing, {})

    def _send(self, mail: EmailMessage) -> None:
        with contextlib.closing(_Session(self._receiver, Deadline(self._receiver.timeout_s, self._clock))) as session:
            session.connect(self._receiver.host, self._receiver.port)
            if self._receiver.tls == "starttls":
                session.secure()
            if self._receiver.username is not None:
                session.login(self._receiver.username, self._receiver.password or "")
            session.send_message(mail, self._receiver.sender, list(self._receiver.to))
            with contextlib.suppress(smtplib.SMTPException, OSError):  # the message is theirs; a rude farewell changes nothing
                session.quit()

    def _without_secrets(self, said: bytes | str) -> str:
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        password = self._receiver.password
        return one_line(text.replace(password, "***") if password else text, 200)


def message(batch: Sequence[Notification], receiver: EmailReceiver) -> EmailMessage:
    """The mail for one notification, or the digest of several."""
    mail = EmailMessage()
    mail["From"] = receiver.sender
    mail["To"] = ", ".join(receiver.to)
    mail["Date"] = format_datetime(batch[-1].created_at)
    mail["Auto-Submitted"] = "auto-generated"
    (_single if len(batch) == 1 else _digest)(mail, batch, receiver)
    return mail


def _single(mail: EmailMessage, batch: Sequence[Notification], receiver: EmailReceiver) -> None:
    notification = batch[0]
    body = read_body(notification)
    root = _message_id(receiver, f"{receiver.name}/{notification.incident}/{body.opened_at.isoformat()}")
    said = subject(notification, body, receiver.layout)
    mail["Subject"] = one_line(said if receiver.layout.subject else f"[Mainstay] {said}", SUBJECT_CHARS)
    if notification.kind is NotificationKind.OPENED:
        mail["Message-ID"] = root
    else:
        mail["Message-ID"] = _message_id(receiver, notification.key)
        mail["In-Reply-To"] = root
        mail["References"] = root
    mail.set_content(paragraphs(notification, body, receiver.layout), cte="quoted-printable")
    if receiver.html:
        mail.add_alternative(page(notification, body, receiver.layout), subtype="html", cte="quoted-printable")


def page(notification: Notification, body: Body, layout: Layout) -> str:
    """The same as a page of HTML without script, style sheet or picture; every value is escaped, the link is the only address in it."""
    if layout.body is not None:
        inner = f"<pre>{body_text(layout.body, notification, body, layout, html.escape)}</pre>"
    else:
        parts = [f"<pre>{html.escape(part)}</pre>" for part in story(notification, body, layout)]
        inner = f"<h3>{html.escape(headline(notification, body))}</h3>{''.join(parts)}"
    address = html.escape(link(notification, layout))
    more = f'<p><a href="{address}">the incident</a></p>' if address else ""
    return f"<!doctype html><html><body>{inner}{more}</body></html>\n"


def _digest(mail: EmailMessage, batch: Sequence[Notification], receiver: EmailReceiver) -> None:
    jobs = sorted({read_body(notification).job for notification in batch})
    mail["Subject"] = one_line(f"[Mainstay] {len(batch)} notifications: {', '.join(jobs)}", SUBJECT_CHARS)
    mail["Message-ID"] = _message_id(receiver, "\n".join(notification.key for notification in batch))
    stories = [paragraphs(notification, read_body(notification), receiver.layout) for notification in batch]
    mail.set_content(f"\n{'-' * 72}\n\n".join(stories), cte="quoted-printable")


def _message_id(receiver: EmailReceiver, of: str) -> str:
    """The same for every try, so that a mailbox can see a repeat."""
    domain = receiver.sender.rpartition("@")[2].strip("> ")
    digest = hashlib.sha256(of.encode("utf-8", "replace")).hexdigest()[:40]
    return f"<{digest}@{domain if domain.isascii() else 'mainstay.invalid'}>"


class _Session(smtplib.SMTP):
    """An SMTP session whose socket keeps one deadline over all commands."""

    def __init__(self, receiver: EmailReceiver, deadline: Deadline) -> None:
        # The default for local_hostname asks the name service for our own full name, without a time-out.
        super().__init__(local_hostname=one_line(socket.gethostname()) or "localhost", timeout=receiver.timeout_s)
        self._receiver = receiver
        self._deadline = deadline
        self._socket: socket.socket | None = None

    def close(self) -> None:
        super().close()
        if self._socket is not None:
            self._socket.close()

    def secure(self) -> None:
        """STARTTLS, or an ``SMTPException``: never on in clear."""
        self.ehlo_or_helo_if_needed()
        if not self.has_extn("starttls"):
            raise smtplib.SMTPNotSupportedError("offers no STARTTLS")
        code, said = self.docmd("STARTTLS")
        if code != 220:
            raise smtplib.SMTPResponseException(code, said)
        if self._socket is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        self._socket = with_tls(self._socket, self._receiver.host, self._deadline)
        self.sock = self._channel(self._socket)
        self.file = None
        self.helo_resp = None
        self.ehlo_resp = None
        self.esmtp_features = {}
        self.does_esmtp = False

    def _get_socket(self, host: str, port: int, timeout: float) -> Any:  # noqa: ARG002 - smtplib's hook
        self._socket = connect(host, port, self._deadline)
        if self._receiver.tls == "tls":
            self._socket = with_tls(self._socket, host, self._deadline)
        return self._channel(self._socket)

    def _channel(self, sock: socket.socket) -> Any:
        return Channel(sock, self._deadline, SESSION_MAX_BYTES)
