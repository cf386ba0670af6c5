# What a guest boots: Debian's cloud kernel, unpacked and never installed, and an initramfs that is made on
# the spot of busybox, iproute2 and this machine's own tools. Kept in VM_CACHE for the next time.
# shellcheck shell=bash

VM_CACHE=${UNDERPASS_VM_CACHE:-/var/cache/underpass-vm}
# The metapackage whose kernel guests boot: Linux 6.12, of bookworm's security archive.
VM_KERNEL=${UNDERPASS_VM_KERNEL:-linux-image-6.12-cloud-amd64}
VM_MODULES='virtio_net af_packet ipip vxlan veth tun bridge ip6_udp_tunnel udp_tunnel'
VM_TOOLS='ip bridge tc ping ethtool tcpdump curl socat'

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

vm_kernel() { printf '%s/vmlinux\n' "$VM_CACHE"; }
vm_initramfs() { printf '%s/initramfs.cpio\n' "$VM_CACHE"; }

# The kernel's own package, whichever the metapackage depends on today.
fetch_kernel() {
    [[ -s $(vm_kernel) && -d $VM_CACHE/tree/lib/modules ]] && return
    local package work
    package=$(kernel_package) || { apt-get update -q >/dev/null && package=$(kernel_package); } ||
        die "$VM_KERNEL is not among this machine's packages (apt-get update); UNDERPASS_VM_KERNEL names another"
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
    local package
    package=$(apt-cache depends "$VM_KERNEL" 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image[^ ]*\).*/\1/p' | head -n 1)
    [[ -n $package ]] && printf '%s\n' "$package"
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
    stamp=$(cat "${BASH_SOURCE[0]}" "$HERE/lib/vm-init" "$HERE/lib/vm-address" <(printf '%s' "$release") | sha256sum)
    [[ -s $(vm_initramfs) && $(cat "$VM_CACHE/stamp" 2>/dev/null) == "$stamp" ]] && return
    root=$(mktemp -d "$VM_CACHE/root.XXXXXX")
    mkdir -p "$root"/{bin,sbin,etc,proc,sys,dev,run,tmp,root,var/run,lib,lib64,usr/bin,usr/sbin}
    cp "$(command -v busybox)" "$root/bin/busybox"
    chroot "$root" /bin/busybox --install -s /bin
    # busybox's shell would run its own `ip` rather than iproute2's, whatever the PATH says.
    local tool
    for tool in dash $VM_TOOLS; do copy_program "$root" "$tool"; done
    ln -sf dash "$root/bin/sh"
    copy_modules "$root" "$release"
    install -m 755 "$HERE/lib/vm-init" "$root/init"
    install -m 755 "$HERE/lib/vm-address" "$root/bin/address"
    (cd "$root" && find . -print0 | cpio -0 -o -H newc --quiet) >"$(vm_initramfs).new"
    mv "$(vm_initramfs).new" "$(vm_initramfs)"
    rm -rf "$root"
    printf '%s\n' "$stamp" >"$VM_CACHE/stamp"
}

# A program of this machine's and the libraries that it is linked with.
copy_program() { # copy_program ROOT NAME
    local path library
    path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$2") || { warn "guests have no $2: it is not installed here"; return 0; }
    rm -f "$1/bin/$2"
    cp -L "$path" "$1/bin/$2"
    for library in $(ldd "$path" 2>/dev/null | grep -oE '/[^ )]+'); do
        mkdir -p "$1$(dirname "$library")"
        cp -Ln "$library" "$1$library"
    done
}

copy_modules() { # copy_modules ROOT RELEASE
    local base=$VM_CACHE/tree file module
    depmod -b "$base" "$2"
    for module in $VM_MODULES; do
        for file in $(modprobe -d "$base" -S "$2" --show-depends "$module" 2>/dev/null | awk '$1 == "insmod" { print $2 }'); do
            mkdir -p "$1/lib/modules"
            # Modules are loaded in this order, each after what it needs.
            [[ -e $1/lib/modules/$(basename "${file%.xz}") ]] || basename "${file%.xz}" >>"$1/lib/modules/order"
            case $file in
                *.xz) xz -dc "$file" >"$1/lib/modules/$(basename "${file%.xz}")" ;;
                *) cp "$file" "$1/lib/modules/" ;;
            esac
        done
    done
}
