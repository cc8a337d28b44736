"""Its place puts this folder on the path of imports, for what several folders of tests share (``fakes``, ``receivers``)."""

import signal

# A shell that starts us in the background has SIGINT and SIGQUIT ignored, and every program that a test starts would inherit that.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)
