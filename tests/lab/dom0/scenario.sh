# SPDX-License-Identifier: MIT OR Apache-2.0
# What a scenario is written in. `scenario.sh NAME` runs one; see tests/lab/README.md.
#
# Times are those of a machine that has a processor for itself. LAB_PATIENCE, which the runner sets from the load of the
# machine it runs on, multiplies all that are limits.

# --- checks -------------------------------------------------------------------------------------------------------

# check NAME FUNCTION [ARGS...]: runs the function until its first failing command, and reports PASS or FAIL for NAME.
# The scenario goes on with the next check either way. The function runs in a subshell: what later checks need is kept
# in the machine (a domain, a disk), not in variables.
check() {
    local name=$1 why=/run/lab/why
    shift
    echo "lab: ---- $name ($(cut -d' ' -f1 /proc/uptime) s)"
    rm -f "$why"
    set +e
    (
        set -eE -o pipefail
        trap 'code=$?; [ -e '"$why"' ] || echo "line ${BASH_LINENO[0]}: \`$BASH_COMMAND\` ended with $code" >'"$why" ERR
        "$@"
    )
    local code=$?
    if [ $code -eq 0 ]; then
        result "PASS $name"
    else
        : >/run/lab/failed
        result "FAIL $name: $(tr '\n' ' ' <"$why" 2>/dev/null || echo "ended with $code")"
    fi
    return 0
}

# The report is descriptor 8; a copy is on the console, for the story.
result() {
    echo "$1" >&8
    echo "lab: $1"
}

# fail WHY: ends the check.
fail() {
    echo "$*" >/run/lab/why
    exit 1
}

# must COMMAND...: fails with what the command printed, unless it ends with 0.
must() {
    local output
    output=$("$@" 2>&1) || failed_command "\`$*\` ended with $?" "$output"
    [ -z "$output" ] || echo "$output"
}

# What a command printed goes to the story whole, and its first and last lines into the reason.
failed_command() {
    echo "$2"
    local lines=${2//$'\n'/ | }
    [ ${#lines} -le 300 ] || lines="${lines:0:150} ... ${lines: -150}"
    fail "$1: $lines"
}

# must_fail COMMAND...: the opposite.
must_fail() {
    local output
    if output=$("$@" 2>&1); then failed_command "\`$*\` did not fail" "$output"; fi
}

# expect_eq WHAT FOUND WANTED
expect_eq() {
    [ "$2" = "$3" ] || fail "$1 is \`$2\`, not \`$3\`"
}

# within SECONDS COMMAND...: waits until the command succeeds, trying ten times a second.
within() {
    local seconds=$(($1 * LAB_PATIENCE)) end
    end=$((SECONDS + seconds))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "not within $seconds s: \`$*\`"
        sleep 0.1
    done
}

for part in /lab/library/*.sh; do . "$part"; done
. "/lab/scenarios/$1.sh"
