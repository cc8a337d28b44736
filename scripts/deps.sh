#!/bin/sh
# Debian's packages behind the tests marked "real". Never fails and never starts a daemon: what is missing makes its tests skip, with the reason.
set -u

sh "$(dirname "$0")/newer.sh"
missing=
unable=
need() { # PROGRAM PACKAGE TESTS
    command -v "$1" >/dev/null 2>&1 && return
    case "$missing " in *" $2 "*) ;; *) missing="$missing $2" ;; esac
    unable="$unable
  $3 (no $1; package $2)"
}
PATH=$PATH:/usr/sbin:/sbin
need prometheus prometheus "tests of scrapes, rules and alerts on a real Prometheus"
need promtool prometheus "tests of exported rules and of the exposition format"
need prometheus-alertmanager prometheus-alertmanager "tests of alerts through a real Alertmanager"
need amtool prometheus-alertmanager "tests of exported routes"
need chromium chromium "tests of the status page in a real browser"
need chromedriver chromium-driver "tests of the status page in a real browser"
need mmdebstrap mmdebstrap "tests under a real systemd"
need mkfs.ext4 e2fsprogs "tests under a real systemd"
need systemd-analyze systemd "tests of the shipped units"
need php php-cli "tests of a job in PHP"
need patchelf patchelf "tests of a CPython newer than this machine's"
newer() { # Pythons that this machine's own packages do not have
    sh "$(dirname "$0")/newer-python.sh" 3.14
}
if [ -z "$missing" ]; then
    newer
    exit 0
fi

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "make: installing$missing"
    policy=/usr/sbin/policy-rc.d # 101: Debian's packages may install, not start, their daemons
    if ! [ -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' INT TERM HUP
    fi
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    apt="apt-get -qq -o DPkg::Lock::Timeout=300"
    {
        $apt update
        case $missing in # from Debian 13 on promtool is a package of its own
            *prometheus*) if apt-cache show promtool >/dev/null 2>&1; then missing="$missing promtool"; fi ;;
        esac
        # shellcheck disable=SC2086
        $apt install -y --no-install-recommends $missing
    } </dev/null >"$log" 2>&1 || { echo "make: apt-get could not install them:"; tail -n 3 "$log"; }
    rm -f "$log"
    unable=
    missing=
    need prometheus prometheus "tests of scrapes, rules and alerts on a real Prometheus"
    need prometheus-alertmanager prometheus-alertmanager "tests of alerts through a real Alertmanager"
    need mmdebstrap mmdebstrap "tests under a real systemd"
    need chromedriver chromium-driver "tests of the status page in a real browser"
    newer
fi
if [ -n "$missing" ]; then
    echo "make: these tests will skip:$unable"
    [ "$(id -u)" -eq 0 ] || echo "make: as root, 'make deps' installs what they need"
fi
exit 0
