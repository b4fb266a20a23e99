# SPDX-License-Identifier: MIT OR Apache-2.0
# DomUs: start, end, run commands in them.

# What saves instructions in an emulated machine, and what makes logs better.
domu_words="console=hvc0 loglevel=5 panic=-1 mitigations=off init_on_alloc=0 audit=0 lsm= nokaslr"
domu_words+=" cryptomgr.notests nowatchdog"

# domu_start NAME [KEY=VALUE...] [MODULES]: a PVH DomU on the stock kernel that takes commands and has loaded MODULES.
# Keys are those of xl.cfg (vcpus=2, memory=512, disk='["…"]'); a word without `=` is a list of modules, separated by
# commas: a name is a stock module, a path one of ours (/modules/…). Without keys it is one that waits since the snapshot,
# if there is one.
domu_start() {
    local name=$1 word modules='' keys=() spare=(/run/lab/spare-*.id)
    shift
    for word; do
        case $word in *=*) keys+=("$word") ;; *) modules=$word ;; esac
    done
    if [ ${#keys[@]} -eq 0 ] && [ -e "${spare[0]}" ]; then
        domu_rename "$(basename "${spare[0]}" .id)" "$name"
    else
        domu_create "$name" "${keys[@]}"
    fi
    [ -z "$modules" ] || domu_load "$name" "$modules"
}

# domu_create NAME [KEY=VALUE...]: a new one.
domu_create() {
    local name=$1 word config=/run/lab/$1.cfg
    shift
    declare -A keys=(
        [type]='"pvh"' [kernel]='"/guest/vmlinux"' [ramdisk]='"/guest/initrd"' [memory]=${LAB_MEMORY:-256} [vcpus]=1
        [tsc_mode]='"native"' [on_crash]='"preserve"' [on_poweroff]='"destroy"' [on_reboot]='"destroy"'
    )
    for word; do keys[${word%%=*}]=${word#*=}; done
    {
        echo "name = \"$name\""
        echo "extra = \"$domu_words ${keys[extra]-}\""
        unset 'keys[extra]'
        for word in "${!keys[@]}"; do echo "$word = ${keys[$word]}"; done
    } >"$config"
    must xl create -q "$config"
    xl domid "$name" >"/run/lab/$name.id"
    must await_value 60 "$(domu_path "$name")/data/lab/ready" 1
}

# domu_rename NAME NEW
domu_rename() {
    must xl rename "$1" "$2"
    mv "/run/lab/$1.id" "/run/lab/$2.id"
    mv "/var/log/xen/console/guest-$1.log" "/var/log/xen/console/guest-$2.log"
}

# domu_load NAME MODULES
domu_load() {
    local module commands='true'
    for module in ${2//,/ }; do
        case $module in */*) commands+=" && insmod $module" ;; *) commands+=" && modprobe $module" ;; esac
    done
    domu_must "$1" "$commands"
}

# domu_id NAME
domu_id() {
    local id
    read -r id <"/run/lab/$1.id" || fail "there is no DomU $1"
    echo "$id"
}

# domu_path NAME: its folder in xenstore.
domu_path() { echo "/local/domain/$(domu_id "$1")"; }

# domu_run NAME COMMAND...: runs a command in the DomU's shell, prints its output and returns its exit code.
# At most `domu_limit` seconds (60): then it returns 124, and the command goes on by itself.
domu_run() {
    local id
    id=$(domu_id "$1") || return
    shift
    remote run --seconds $((${domu_limit:-60} * LAB_PATIENCE)) "$id" "$*"
}

# domu_must NAME COMMAND...: fails the check, with the command's output, unless the command ends with 0 in the DomU.
domu_must() {
    local output
    output=$(domu_run "$@") || failed_command "in $1 \`${*:2}\` ended with $?" "$output"
    [ -z "$output" ] || echo "$output"
}

# domu_spawn NAME TAG COMMAND...: starts a command in the DomU and returns at once.
domu_spawn() {
    local name=$1 end=/run/$2.end out=/run/$2.out
    shift 2
    # Whoever opens the pipe to read it gets the code, then or later.
    domu_must "$name" "rm -f $end; mkfifo $end; (bash -o pipefail -c $(printf %q "$*") >$out 2>&1; echo \$? >$end) &"
}

# domu_join NAME TAG [SECONDS]: waits for it, prints its output and returns its exit code; 124 if it is not done.
domu_join() {
    local seconds=$((${3:-60} * LAB_PATIENCE))
    domu_limit=$((${3:-60} + 10)) domu_run "$1" \
        "read -r -t $seconds code <>/run/$2.end || exit 124; cat /run/$2.out; exit \$code"
}

# domu_stop NAME: destroys it, and waits until it has gone.
domu_stop() {
    must xl destroy "$1"
    within 30 domu_gone "$1"
    rm -f "/run/lab/$1.id"
}

domu_gone() { ! xl domid "$1"; }
