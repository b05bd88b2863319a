#!/usr/bin/env bash
# Installs the foreign clients and servers that the stories run against, and with
# the argument "bench" those that the box is measured beside. As root on Debian it
# installs what is missing; elsewhere it says what to install. The emulator
# (qemu-system-x86, ovmf) starts the appliance's image in make test.
set -euo pipefail

declare -A need=(
  [gcc]=gcc [curl]=curl [aria2c]=aria2 [wget2]=wget2 [opentracker]=opentracker
  [apt-ftparchive]=apt-utils [dpkg-deb]=dpkg [systemd-analyze]=systemd [gpg]=gnupg [ssh]=openssh-client [chromium]=chromium
  [node]=nodejs [npm]=npm [g++]=g++ [uftp]=uftp [udp-sender]=udpcast [tshark]=tshark
  [nginx]=nginx-light [xz]=xz-utils [mke2fs]=e2fsprogs [fsck.fat]=dosfstools [mtype]=mtools [sgdisk]=gdisk
  [grub-mkimage]=grub-common [cpio]=cpio [qemu-system-x86_64]=qemu-system-x86 [qemu-system-aarch64]=qemu-system-arm
  [qbittorrent-nox]=qbittorrent-nox [rtorrent]=rtorrent [transmission-daemon]=transmission-daemon
)
if [ "${1:-}" = bench ]; then
  need=([nginx]=nginx-light [squid]=squid [varnishd]=varnish [traffic_server]=trafficserver [gcc]=gcc)
fi
missing=()
/usr/bin/python3 -c 'import libtorrent' 2>/dev/null || missing+=(python3-libtorrent)
if [ "${1:-}" != bench ]; then
  [ -e /usr/include/normApi.h ] || missing+=(libnorm-dev)
  [ -e /usr/lib/grub/i386-pc/boot.img ] || missing+=(grub-pc-bin)
  [ -e /usr/share/OVMF/OVMF_CODE_4M.fd ] || missing+=(ovmf)
  [ -e /usr/share/AAVMF/AAVMF_CODE.fd ] || missing+=(qemu-efi-aarch64)
  [ -e /usr/lib/u-boot/qemu_arm64/u-boot.bin ] || missing+=(u-boot-qemu)
fi
for tool in "${!need[@]}"; do
  command -v "$tool" >/dev/null 2>&1 || missing+=("${need[$tool]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "WARNING: not installed: ${missing[*]}. Their tests will be skipped (with CI=true: fail)."
  echo "         As root on Debian: apt-get install --no-install-recommends ${missing[*]}"
  exit 0
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A policy that lets no daemon start: the tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$log" "$policy"' EXIT
fi
if ! { apt-get -qq update && apt-get -qq install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  cat "$log"
  exit 1
fi
