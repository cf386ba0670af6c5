# What a guest boots: Debian's cloud kernel, unpacked and never installed, and an initramfs that is made on
# the spot of busybox, iproute2 and this machine's own tools; or, from there, a small Debian with systemd on a
# disk. Kept in VM_CACHE for the next time.
# shellcheck shell=bash

VM_CACHE=${UNDERPASS_VM_CACHE:-/var/cache/underpass-vm}
# The metapackages whose kernel guests boot, the first that there is: Linux 6.12, of bookworm's security
# archive, or bookworm's own 6.1.
VM_KERNEL=${UNDERPASS_VM_KERNEL:-linux-image-6.12-cloud-amd64 linux-image-cloud-amd64}
VM_MODULES='virtio_pci virtio_console virtio_net af_packet ipip vxlan veth tun bridge ip6_udp_tunnel udp_tunnel'
VM_DISK_MODULES='virtio_blk ext4'
VM_TOOLS='ip bridge tc ping ethtool tcpdump curl socat'
# The Debian on a disk: what underpass' package depends on, and what is needed to try it.
VM_MIRROR=${UNDERPASS_VM_MIRROR:-http://deb.debian.org/debian}
VM_PACKAGES=systemd,systemd-sysv,udev,iproute2,libelf1,zlib1g,iputils-ping,curl,busybox-static

# Makes the kernel and the initramfs if they are not there; fails with a sentence if they cannot be made.
make_vm_image() {
    command -v qemu-system-x86_64 >/dev/null || die "no qemu-system-x86_64: scripts/setup vm installs it"
    mkdir -p "$VM_CACHE"
    exec {VM_LOCK}>"$VM_CACHE/lock"
    flock -w 300 "$VM_LOCK" || die "another scripts/vm-lab has been making $VM_CACHE for five minutes"
    fetch_kernel
    make_initramfs
    exec {VM_LOCK}>&-
}

# The same for the disk; without the programs or the network it fails with a sentence.
make_vm_system() {
    exec {VM_LOCK}>"$VM_CACHE/lock"
    flock -w 600 "$VM_LOCK" || die "another scripts/vm-lab has been making $VM_CACHE for ten minutes"
    make_system
    exec {VM_LOCK}>&-
}

vm_kernel() { printf '%s/vmlinux\n' "$VM_CACHE"; }
vm_initramfs() { printf '%s/initramfs.cpio\n' "$VM_CACHE"; }
vm_system() { printf '%s/system.ext4\n' "$VM_CACHE"; }

# The kernel's own package, whichever the metapackage depends on today.
fetch_kernel() {
    [[ -s $(vm_kernel) && -d $VM_CACHE/tree/lib/modules ]] && return
    local package work
    package=$(kernel_package) || { apt-get update -q >/dev/null && package=$(kernel_package); } ||
        die "none of $VM_KERNEL is among this machine's packages (apt-get update); UNDERPASS_VM_KERNEL names another"
    say "fetching $package"
    work=$(mktemp -d "$VM_CACHE/fetch.XXXXXX")
    (cd "$work" && apt-get download -q -o APT::Sandbox::User=root "$package" >/dev/null) ||
        { rm -rf "$work"; die "$package could not be fetched"; }
    dpkg -x "$work"/*.deb "$work/tree"
    rm -rf "$VM_CACHE/tree"
    mv "$work/tree" "$VM_CACHE/tree"
    rm -rf "$work"
    # Debian 13 and later have /usr/lib/modules.
    [[ -d $VM_CACHE/tree/lib/modules ]] || { mkdir -p "$VM_CACHE/tree/lib"; mv "$VM_CACHE/tree/usr/lib/modules" "$VM_CACHE/tree/lib/"; }
    uncompress_kernel "$VM_CACHE"/tree/boot/vmlinuz-* "$(vm_kernel)"
}

kernel_package() {
    local package kernel
    for kernel in $VM_KERNEL; do
        package=$(apt-cache depends "$kernel" 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image[^ ]*\).*/\1/p' | head -n 1)
        [[ -z $package ]] || { printf '%s\n' "$package"; return; }
    done
    return 1
}

# A bzImage is a small program and the compressed kernel behind it. Under emulation, decompressing takes
# seconds, and QEMU boots the ELF file (PVH) as well. What cannot be taken apart is booted as it is.
uncompress_kernel() { # uncompress_kernel BZIMAGE ELF
    local magic tool offset
    while read -r magic tool; do
        for offset in $(LC_ALL=C grep -abo -P "$magic" "$1" | cut -d: -f1); do
            tail -c +$((offset + 1)) "$1" | $tool >"$2.new" 2>/dev/null || true
            if [[ $(head -c 4 "$2.new") == $'\x7fELF' ]]; then
                mv "$2.new" "$2"
                return
            fi
        done
    done <<'MAGIC'
\x28\xb5\x2f\xfd zstd -dc
\xfd7zXZ\x00 xz -dc
\x1f\x8b\x08 gzip -dc
MAGIC
    rm -f "$2.new"
    cp "$1" "$2"
}

make_initramfs() {
    local root release stamp
    release=$(basename "$VM_CACHE"/tree/lib/modules/*)
    stamp=$(cat "${BASH_SOURCE[0]}" "$HERE/lib/vm-init" "$HERE/lib/vm-agent" "$HERE/lib/vm-address" <(printf '%s' "$release") | sha256sum)
    [[ -s $(vm_initramfs) && $(cat "$VM_CACHE/stamp" 2>/dev/null) == "$stamp" ]] && return
    root=$(mktemp -d "$VM_CACHE/root.XXXXXX")
    mkdir -p "$root"/{bin,sbin,etc,proc,sys,dev,run,tmp,root,var/run,lib,lib64,usr/bin,usr/sbin}
    cp "$(command -v busybox)" "$root/bin/busybox"
    chroot "$root" /bin/busybox --install -s /bin
    # busybox's shell would run its own `ip` rather than iproute2's, whatever the PATH says.
    local tool
    for tool in dash $VM_TOOLS; do copy_program "$root" "$tool"; done
    ln -sf dash "$root/bin/sh"
    copy_modules "$root" "$release" order "$VM_MODULES"
    copy_modules "$root" "$release" disk "$VM_DISK_MODULES"
    install -m 755 "$HERE/lib/vm-init" "$root/init"
    install -m 755 "$HERE/lib/vm-agent" "$root/bin/agent"
    install -m 755 "$HERE/lib/vm-address" "$root/bin/address"
    archive "$root" >"$(vm_initramfs).new"
    mv "$(vm_initramfs).new" "$(vm_initramfs)"
    rm -rf "$root"
    printf '%s\n' "$stamp" >"$VM_CACHE/stamp"
}

# archive ROOT: everything below it as the kernel unpacks it. Several one after another are one.
archive() { (cd "$1" && find . -print0 | cpio -0 -o -H newc --quiet); }

# A program of this machine's, by its name or path, and the libraries that it is linked with.
copy_program() { # copy_program ROOT PROGRAM [NAME-THERE]
    local path name=${3:-$2} library
    path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$2") || { warn "guests have no $2: it is not installed here"; return 0; }
    mkdir -p "$1/bin"
    rm -f "$1/bin/$name"
    cp -L "$path" "$1/bin/$name"
    for library in $(ldd "$path" 2>/dev/null | grep -oE '/[^ )]+'); do
        mkdir -p "$1$(dirname "$library")"
        cp -Ln "$library" "$1$library"
    done
}

# Modules in the order in which they are loaded, each after what it needs.
copy_modules() { # copy_modules ROOT RELEASE LIST MODULES
    local base=$VM_CACHE/tree file module name
    depmod -b "$base" "$2"
    mkdir -p "$1/lib/modules"
    for module in $4; do
        for file in $(modprobe -d "$base" -S "$2" --show-depends "$module" 2>/dev/null | awk '$1 == "insmod" { print $2 }'); do
            name=$(basename "${file%.xz}")
            [[ ! -e $1/lib/modules/$name ]] || continue
            say "$name" >>"$1/lib/modules/$3"
            case $file in
                *.xz) xz -dc "$file" >"$1/lib/modules/$name" ;;
                *) cp "$file" "$1/lib/modules/" ;;
            esac
        done
    done
}

# A Debian 12 as small as it comes, with systemd as process 1 and the agent as one of its services.
make_system() {
    local root stamp
    stamp=$({ declare -f configure_system && say "$VM_PACKAGES" && cat "$HERE/lib/vm-agent"; } | sha256sum)
    [[ -s $(vm_system) && $(cat "$VM_CACHE/system.stamp" 2>/dev/null) == "$stamp" ]] && return
    command -v debootstrap >/dev/null || die "no debootstrap here: scripts/setup vm installs it"
    say "making a Debian with systemd for guests"
    root=$(mktemp -d "$VM_CACHE/system.XXXXXX")
    if ! debootstrap --variant=minbase --include="$VM_PACKAGES" bookworm "$root" "$VM_MIRROR" >"$VM_CACHE/system.log" 2>&1; then
        rm -rf "$root"
        die "debootstrap failed ($VM_CACHE/system.log); UNDERPASS_VM_MIRROR names another mirror than $VM_MIRROR"
    fi
    configure_system "$root"
    rm -f "$(vm_system).new"
    mke2fs -q -t ext4 -d "$root" "$(vm_system).new" 700M >/dev/null
    mv "$(vm_system).new" "$(vm_system)"
    rm -rf "$root"
    printf '%s\n' "$stamp" >"$VM_CACHE/system.stamp"
}

# What a guest of a minute does not need is left out, and nothing is left to be done at its first start.
configure_system() { # configure_system ROOT
    local unit etc=$1/etc
    rm -rf "$1"/usr/share/{doc,man,locale,info}/* "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*
    say underpass-vm >"$etc/hostname"
    say 5f1c0d9a7be84c0e9d1f3b7a6c2e4d80 >"$etc/machine-id"
    # udev sets the rights of /dev/net/tun when it starts; it has no need to look for devices.
    for unit in apt-daily{,-upgrade}.timer dpkg-db-backup.timer e2scrub_{all.timer,reap.service} fstrim.timer \
        getty{@tty1.service,-static.service} systemd-{udev-trigger,update-utmp,update-utmp-runlevel,random-seed}.service \
        systemd-{modules-load,journal-flush,pcrphase,pcrphase-sysinit}.service systemd-tmpfiles-clean.timer \
        modprobe@{configfs,dm_mod,drm,efi_pstore,fuse,loop}.service dev-{hugepages,mqueue}.mount \
        sys-kernel-{debug,tracing,config}.mount sys-fs-fuse-connections.mount; do
        ln -sf /dev/null "$etc/systemd/system/$unit"
    done
    install -m 755 "$HERE/lib/vm-agent" "$1/usr/local/sbin/vm-agent"
    cat >"$etc/systemd/system/vm-agent.service" <<'UNIT'
[Service]
ExecStart=/usr/local/sbin/vm-agent
KillMode=process
UNIT
    mkdir -p "$etc/systemd/system/multi-user.target.wants"
    ln -sf ../vm-agent.service "$etc/systemd/system/multi-user.target.wants/"
    touch "$etc/.updated" "$1/var/.updated"
}
