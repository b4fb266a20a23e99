# SPDX-License-Identifier: MIT OR Apache-2.0
# Waiting for values in xenstore.

# await_value SECONDS PATH [VALUE]: waits until the node exists (with that value). It watches, and does not poll.
await_value() { remote await $(($1 * LAB_PATIENCE)) "${@:2}"; }
