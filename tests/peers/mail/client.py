"""Sends three mails in one session: `client.py HOST PORT`."""

import smtplib
import sys
from email.message import EmailMessage

with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), timeout=60) as session:
    for number in range(3):
        mail = EmailMessage()
        mail["From"] = "a@example.com"
        mail["To"] = "b@example.com"
        mail["Subject"] = f"number {number}"
        mail.set_content("a line of text\n.\n" * 5_000)
        refused = session.send_message(mail)
        assert not refused, refused
