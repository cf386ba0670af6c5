# Guests: QEMU processes, and commands carried out in them. Source it after vm-image.sh and links.sh.
# shellcheck shell=bash

GUEST_DIR=$LAB_DIR/guests
# A guest boots in 3 to 5 s under emulation on an idle machine.
GUEST_TIMEOUT=${UNDERPASS_VM_TIMEOUT:-60}

# Hardware acceleration only where it truly works: /dev/kvm alone proves nothing, and kvm_pvm's aborts.
vm_accelerator() {
    if [[ -n ${UNDERPASS_VM_ACCEL:-} ]]; then
        say "$UNDERPASS_VM_ACCEL"
    elif [[ -w /dev/kvm && ! -e /sys/module/kvm_pvm ]] && grep -qwE 'vmx|svm' /proc/cpuinfo; then
        say kvm
    else
        say tcg
    fi
}

# boot_guest NAME SPACE NETDEV MAC [DEVICE-OPTIONS]: QEMU in the named network namespace.
boot_guest() {
    local name=$1 space=$2 netdev=$3 mac=$4 options=${5:-} accelerator directory=$GUEST_DIR/$1
    accelerator=$(vm_accelerator)
    [[ $accelerator != tcg ]] || accelerator=tcg,thread=multi
    mkdir -p "$directory"
    setsid ip netns exec "$(namespace_of "$space")" qemu-system-x86_64 -name "$name" -accel "$accelerator" -cpu max \
        -M q35 -m 192 -kernel "$(vm_kernel)" -initrd "$(vm_initramfs)" -nodefaults -no-reboot -display none \
        -serial "file:$directory/console" \
        -device virtio-serial-pci -chardev "socket,id=agent,path=$directory/agent,server=on,wait=off" \
        -device virtserialport,chardev=agent,name=underpass \
        -netdev "$netdev,id=net" -device "virtio-net-pci,netdev=net,mac=$mac$options" \
        -append "console=ttyS0 quiet mitigations=off nokaslr audit=0 apparmor=0 tsc=reliable no_timer_check \
cryptomgr.notests random.trust_cpu=on panic=-1 net.ifnames=0" \
        </dev/null >"$directory/log" 2>&1 {LOCK}>&- &
    printf '%s\n' $! >"$directory/pid"
}

# wait_for_guest NAME: until its first process answers.
wait_for_guest() {
    wait_until "$GUEST_TIMEOUT" guest_answers_or_dead "$1" && guest_pid "$1" >/dev/null && return
    warn "$1 did not boot within $GUEST_TIMEOUT s; what it and QEMU said:"
    tail -n 15 "$GUEST_DIR/$1/log" "$GUEST_DIR/$1/console" >&2 || true
    exit 1
}

guest_answers_or_dead() { ! guest_pid "$1" >/dev/null || guest_in "$1" true 2>/dev/null; }

# guest_in NAME COMMAND: runs a command line in a guest and prints what it prints; its status is the status.
guest_in() {
    python3 "$HERE/lib/vm-exec.py" "$GUEST_DIR/$1/agent" "$2" "${UNDERPASS_VM_COMMAND_TIMEOUT:-60}"
}

guest_pid() {
    local pid
    pid=$(cat "$GUEST_DIR/$1/pid" 2>/dev/null) && [[ -n $pid ]] || return 1
    { tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qF "$GUEST_DIR/$1/agent"; } 2>/dev/null || return 1
    printf '%s\n' "$pid"
}

guest_ended() { ! guest_pid "$1" >/dev/null; }

stop_guests() {
    local directory
    for directory in "$GUEST_DIR"/*/; do stop_guest "$(basename "$directory")"; done
    rm -rf "$GUEST_DIR"
}

stop_guest() { # stop_guest NAME
    local pid
    pid=$(guest_pid "$1") || return 0
    kill -TERM "$pid" 2>/dev/null || true
    wait_until 5 guest_ended "$1" || kill -KILL "$pid" 2>/dev/null || true
}
