# SPDX-License-Identifier: MIT OR Apache-2.0
# What an interactive Dom0 begins with (`cargo xtask lab shell`).
PS1='dom0# '
for part in /lab/library/*.sh; do . "$part"; done
# There is no check to end.
fail() { echo "$*" >&2; return 1; }
cat <<'TEXT'

Dom0 of a real Xen. A DomU is being started: d1.
  xl console d1             its console (leave with Ctrl-])
  domu_run d1 COMMAND       runs a command in it
  ls /modules               our modules, here and in the DomU: insmod /modules/….ko
  modprobe xen-blkback      the stock ones
  disk_attach d1 xvda "$(disk_make one 128)"
  poweroff                  ends the machine, and so does Ctrl-A X

TEXT
poweroff() { sync; command poweroff -f; }
(domu_start d1 && echo "DomU d1 is ready") || echo "DomU d1 did not start"
