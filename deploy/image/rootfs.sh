#!/usr/bin/env bash
# Collects the files of the image: one binary, the libraries it is linked with, the programs that scratch
# volumes need, certificates, two accounts. No shell, no package manager. Same input, same bytes.
#   rootfs.sh BINARY DIRECTORY     DIRECTORY is made; owner root:root is left to whoever packs it
#   SOURCE_DATE_EPOCH              time of every file (default 0)
set -euo pipefail
binary=${1:?the terrace binary} root=${2:?the directory to make}
epoch=${SOURCE_DATE_EPOCH:-0}
# Programs beside ours: file systems of loop images, and the module that Kerberos clusters need at run time.
programs=(mkfs.ext4 mkfs.xfs resize2fs xfs_growfs)
loaded=(libgssapi_krb5.so.2 libnss_dns.so.2 libnss_files.so.2)

[[ ! -e $root ]] || { echo "rootfs: $root exists" >&2; exit 1; }
mkdir -p "$root"/{etc/ssl/certs,tmp,run/terrace,var/lib/terrace,var/cache/terrace,usr/bin,usr/sbin,usr/lib,dev,proc,sys}
# Debian's layout: the old directories are links into /usr.
ln -s usr/bin "$root/bin"
ln -s usr/sbin "$root/sbin"
ln -s usr/lib "$root/lib"
mkdir "$root/usr/lib64"
ln -s usr/lib64 "$root/lib64"

# Copies a library to where the loader looks for it: by the path that the loader found it at.
copy_library() {
    local path=$1 target=$root/usr/${1#/}
    [[ $path == /usr/* ]] && target=$root$path
    [[ -e $target ]] || install -D -m 0755 "$(readlink -f "$path")" "$target"
}
# Copies what a program or library is linked with; the loader itself is among it.
copy_linked() {
    local path
    while read -r path; do copy_library "$path"; done < <(ldd "$1" | sed -nE 's/^.*[[:space:]](\/[^ ]+) \(0x.*$/\1/p; s/^[[:space:]]*(\/[^ ]+) \(0x.*$/\1/p' | sort -u)
}

install -D -m 0755 "$binary" "$root/usr/bin/terrace"
copy_linked "$binary"
for program in "${programs[@]}"; do
    found=$(PATH="$PATH:/usr/sbin:/sbin" command -v "$program") || { echo "rootfs: no $program; install e2fsprogs and xfsprogs" >&2; exit 1; }
    install -D -m 0755 "$(readlink -f "$found")" "$root/usr/sbin/$program"
    copy_linked "$found"
done
for library in "${loaded[@]}"; do
    found=$(ldconfig -p | sed -nE "s/^[[:space:]]*$library .*x86-64.* => (.*)$/\1/p; s/^[[:space:]]*$library .*AArch64.* => (.*)$/\1/p" | head -n 1)
    [[ -n $found ]] || { echo "rootfs: no $library" >&2; exit 1; }
    copy_library "$found"
    copy_linked "$found"
done
[[ ! -e /etc/mke2fs.conf ]] || install -m 0644 /etc/mke2fs.conf "$root/etc/mke2fs.conf"
install -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/:/nonexistent
nonroot:x:65532:65532:nonroot:/:/nonexistent
END
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
chmod 0644 "$root"/etc/{passwd,group,nsswitch.conf}
chmod 1777 "$root/tmp"
find "$root" -exec touch --no-dereference --date="@$epoch" {} +
