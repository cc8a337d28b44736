#!/bin/sh
# speak.sh JOURNAL FIXED: a job in plain sh that says where it stands; record c kills it. Runs without Mainstay too.
say() { printf "$@" >"${MAINSTAY_PROGRESS:-/dev/null}"; }
n=0
for key in a b c d e; do
    [ -z "$MAINSTAY_ONLY" ] || [ "$key" = "$MAINSTAY_ONLY" ] || continue
    grep -qsxF -- "$key" "$MAINSTAY_SKIP" "$1" && continue # set aside, or done already
    say 'records %s\nprogress %s 5 letters\nrecord %s\n' "$n" "$n" "$key"
    [ "$key" != c ] || [ -e "$2" ] || exit 3
    echo "$key" >>"$1"
    n=$((n + 1))
    say 'records %s\nprogress %s 5 letters\n' "$n" "$n"
done
