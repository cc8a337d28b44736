"""Alerts about Mainstay itself, each with the situations in which it fires and is silent."""

from typing import Final

from supervisor.export.definition import Alert, Case, Severity

_CRITICAL, _WARNING = Severity.CRITICAL, Severity.WARNING
DASHBOARD: Final = "mainstay-daemon"

DAEMON_ALERTS: Final = (
    Alert(
        "MainstayDown",
        "up{} == 0",
        _CRITICAL,
        "Mainstay does not answer",
        "Prometheus cannot scrape {instance}. Either Mainstay or its host is down, and nobody watches its jobs; or the way there is closed.",
        wait="2m",
        panel=(DASHBOARD, 1),
        cases=(
            Case("the target has been gone for long", {"up": "1x2 0x10"}, "10m", {}),
            Case("it missed one scrape", {"up": "1x2 0 1x10"}, "4m"),
            Case("it answers", {"up": "1x10"}, "10m"),
        ),
    ),
    Alert(
        "MainstayAbsent",
        "absent(up{})",
        _CRITICAL,
        "Prometheus has no Mainstay to scrape",
        "No target matches. Mainstay has left the scrape configuration or its service discovery, so no other alert about it can fire.",
        wait="5m",
        cases=(
            Case("no target at all", {"unrelated_metric": "1x20"}, "10m", {}),
            Case("the target is down, which is another alert", {"up": "0x20"}, "10m"),
        ),
    ),
    Alert(
        "MainstayStalled",
        "time() - mainstay_loop_last_tick_timestamp_seconds{} > 60",
        _CRITICAL,
        "Mainstay's loop stands still",
        "The supervising loop on {instance} has not come round for {value:duration}, although its page is served. Limits and schedules are not kept.",
        wait="1m",
        panel=(DASHBOARD, 3),
        cases=(
            Case("the loop stopped at the start", {"mainstay_loop_last_tick_timestamp_seconds": "0x20"}, "5m", {}, "5m 0s"),
            Case("it comes round", {"mainstay_loop_last_tick_timestamp_seconds": "0+60x20"}, "10m"),
        ),
    ),
    Alert(
        "MainstayRestarted",
        'max without (reason) (changes(mainstay_starts_total{reason="crash"}[30m])) >= 2',
        _WARNING,
        "Mainstay crashes again and again",
        "The supervisor on {instance} has crashed and was started again {value:count} times within half an hour. The jobs were taken over each time.",
        panel=(DASHBOARD, 2),
        cases=(
            Case("it crashed twice", {'mainstay_starts_total{reason="crash"}': "0x5 1x5 2x20"}, "20m", {}, "2"),
            Case("it crashed once", {'mainstay_starts_total{reason="crash"}': "0x5 1x20"}, "20m"),
            Case("it was restarted in order", {'mainstay_starts_total{reason="clean"}': "0x5 1x5 2x5 3x20"}, "20m"),
        ),
    ),
    Alert(
        "MainstayConfigReloadFailed",
        "mainstay_config_last_reload_successful{} == 0",
        _WARNING,
        "Mainstay refused its config",
        "The last reload on {instance} was refused; the earlier config is still in force. `mainstay check` says what is wrong.",
        wait="5m",
        panel=(DASHBOARD, 4),
        cases=(
            Case("it was refused", {"mainstay_config_last_reload_successful": "1x2 0x10"}, "10m", {}),
            Case("mended within the wait", {"mainstay_config_last_reload_successful": "1x2 0x2 1x10"}, "10m"),
        ),
    ),
    Alert(
        "MainstayHistoryErrors",
        "sum without (operation) (increase(mainstay_store_errors_total{}[15m])) > 0",
        _WARNING,
        "Mainstay cannot use its history",
        "On {instance} the history database could not be read or written. Jobs go on; rows are kept in memory and written later.",
        panel=(DASHBOARD, 6),
        cases=(
            Case(
                "writes failed",
                {'mainstay_store_errors_total{operation="write"}': "0x5 4x20", 'mainstay_store_errors_total{operation="read"}': "0x25"},
                "10m",
                {},
            ),
            Case("none failed", {'mainstay_store_errors_total{operation="write"}': "3x25"}, "20m"),
        ),
    ),
    Alert(
        "MainstayNotificationsFailing",
        'sum without (result) (increase(mainstay_notifications_total{result=~"failed|dropped"}[15m])) > 0',
        _CRITICAL,
        "Mainstay's alerts do not arrive",
        "On {instance} notifications to the receiver {receiver} fail. People are not told; what waits is tried again.",
        wait="5m",
        panel=(DASHBOARD, 8),
        cases=(
            Case(
                "a receiver is down",
                {
                    'mainstay_notifications_total{receiver="ops",result="failed"}': "0x5 1+1x20",
                    'mainstay_notifications_total{receiver="ops",result="dropped"}': "0x30",
                },
                "15m",
                {"receiver": "ops"},
            ),
            Case("all are sent", {'mainstay_notifications_total{receiver="ops",result="sent"}': "0+1x30"}, "15m"),
        ),
    ),
    Alert(
        "MainstayIncidentsOpen",
        "sum without (severity) (mainstay_incidents_open{}) > 0",
        _WARNING,
        "An incident has been open for a day",
        "On {instance} incidents have been open for a day: {value:count} now. Nobody mended or resolved them; `mainstay incidents --open` lists them.",
        wait="1d",
        panel=(DASHBOARD, 7),
        cases=(
            Case(
                "one stays open",
                {'mainstay_incidents_open{severity="critical"}': "1x80", 'mainstay_incidents_open{severity="warning"}': "0x80"},
                "30h",
                {},
                "1",
                step="30m",
            ),
            Case("it was closed in time", {'mainstay_incidents_open{severity="critical"}': "1x20 0x60"}, "30h", step="30m"),
        ),
    ),
    Alert(
        "MainstayWatchdog",
        "vector(1)",
        Severity.NONE,
        "The way from Prometheus to people works",
        "This alert always fires. Route it to something outside that raises an alarm when it falls silent: then the whole way is watched.",
        cases=(Case("always", {"unrelated_metric": "1x5"}, "1m", {}),),
    ),
)
"""In the order of the file. The watchdog cannot be silent: its test is that it fires from the first evaluation on."""
