# SPDX-License-Identifier: MIT OR Apache-2.0
# What ends a check.

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
