# SPDX-License-Identifier: MIT OR Apache-2.0
# Waiting for values in xenstore.

# await_value SECONDS PATH [VALUE]: waits until the node exists (with that value). It watches, and does not poll.
await_value() {
    local seconds=$(($1 * LAB_PATIENCE)) path=$2 end event watch found code=1
    end=$((SECONDS + seconds))
    exec {watch}< <(exec xenstore-watch "$path")
    local pid=$!
    while [ $SECONDS -lt $end ] && read -r -t $((end - SECONDS)) -u $watch event; do
        if found=$(xenstore-read "$path" 2>/dev/null) && { [ $# -lt 3 ] || [ "$found" = "$3" ]; }; then
            code=0
            break
        fi
    done
    kill $pid 2>/dev/null || true
    exec {watch}<&-
    [ $code -eq 0 ] || echo "$path is not ${3:-set} after $seconds s, but: ${found-absent}" >&2
    return $code
}
