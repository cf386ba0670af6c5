# Guests: QEMU processes, and commands carried out in them. Source it after vm-image.sh and links.sh.
# shellcheck shell=bash

GUEST_DIR=$LAB_DIR/guests
# A guest boots in 3 to 5 s under emulation on an idle machine, and a Debian in 10 to 20.
GUEST_TIMEOUT=${UNDERPASS_VM_TIMEOUT:-120}
# By guest: megabytes of memory, if not 192; and whether it is a Debian with systemd.
declare -A GUEST_MEMORY GUEST_SYSTEM

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

# boot_guest NAME SPACE NIC...: QEMU in the named network namespace; a NIC is written MAC|NETDEV. What is
# below $GUEST_DIR/NAME/files comes with the initramfs. GUEST_MEMORY and GUEST_SYSTEM say what else it has.
boot_guest() {
    local name=$1 space=$2 directory=$GUEST_DIR/$1 accelerator nic number=0
    shift 2
    accelerator=$(vm_accelerator)
    [[ $accelerator != tcg ]] || accelerator=tcg,thread=multi
    mkdir -p "$directory"
    local initramfs more=() kernel="console=ttyS0 quiet mitigations=off nokaslr audit=0 apparmor=0 tsc=reliable \
no_timer_check cryptomgr.notests random.trust_cpu=on panic=-1 net.ifnames=0"
    initramfs=$(vm_initramfs)
    if [[ -d $directory/files ]]; then
        { cat "$initramfs" && archive "$directory/files"; } >"$directory/initramfs"
        initramfs=$directory/initramfs
    fi
    for nic in "$@"; do
        more+=(-netdev "${nic#*|},id=net$number" -device "virtio-net-pci,netdev=net$number,mac=${nic%%|*}")
        number=$((number + 1))
    done
    if [[ -n ${GUEST_SYSTEM[$name]:-} ]]; then
        # What it writes goes to a file that is gone with QEMU.
        more+=(-drive "file=$(vm_system),format=raw,if=virtio,snapshot=on")
        kernel+=" root=/dev/vda"
    fi
    setsid ip netns exec "$(namespace_of "$space")" qemu-system-x86_64 -name "$name" -accel "$accelerator" -cpu max \
        -M q35 -m "${GUEST_MEMORY[$name]:-192}" -kernel "$(vm_kernel)" -initrd "$initramfs" \
        -nodefaults -no-reboot -display none -serial "file:$directory/console" \
        -device virtio-serial-pci -chardev "socket,id=agent,path=$directory/agent,server=on,wait=off" \
        -device virtserialport,chardev=agent,name=underpass "${more[@]}" -append "$kernel" \
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

# guest_put NAME DIRECTORY: the files of the host's directory in the guest's of the same name, or of $3.
guest_put() {
    local packed
    # Not the directory itself, which may have another owner there.
    packed=$(cd "$2" && tar -cz -- * | base64 -w 0)
    guest_in "$1" "mkdir -p '${3:-$2}' && echo $packed | base64 -d | tar -xz -C '${3:-$2}' -f -"
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
    rm -f "$GUEST_DIR/$1/up"
    pid=$(guest_pid "$1") || return 0
    kill -TERM "$pid" 2>/dev/null || true
    wait_until 5 guest_ended "$1" || kill -KILL "$pid" 2>/dev/null || true
}
