#!/usr/bin/env bash
# Makes the Debian packages of one architecture out of programs that are built:
#   make.sh VERSION ARCH PROGRAMS OUT
# PROGRAMS is the folder of cisternd, cistern and cistern-agent. Needs dpkg-deb, not
# root. The same programs and SOURCE_DATE_EPOCH make the same bytes.
#
# The folders beside this file are the packages as they will lie on a disk; @NAMES@
# in the scripts are filled in below, manual pages are compressed.
set -euo pipefail
[ $# -eq 4 ] || { sed -n '2,5s/^# //p' "$0"; exit 2; }
arch=$2 programs=$(realpath "$3") out=$(mkdir -p "$4" && realpath "$4")
cd "$(dirname "$0")"
go=${GO:-go}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)} LC_ALL=C TZ=UTC
umask 022

# Debian's versions begin with a digit and keep "-" for a revision of their own: what
# git describe counts after a tag sorts after it, a pre-release before its release, and
# what has no number yet by its date, before everything.
version=$(sed -E 's/^v//; s/-([0-9]+)-(g[0-9a-f]+)$/+\1.\2/; s/-/~/g' <<<"$1")
case $version in
[0-9]*.*) ;;
*) version=0~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d.%H%M%S)+$version ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# licences prints the terms of the modules that programs were linked with.
licences() {
  cat "$($go env GOROOT)/LICENSE" 2>/dev/null || true
  $go version -m "$@" | awk '$1 == "dep" {print $2}' | sort -u |
    (cd ../.. && xargs $go list -m -f '{{.Path}} {{.Dir}}') | while read -r module dir; do
    find "$dir" -maxdepth 1 -type f \( -iname 'licen[sc]e*' -o -iname 'copying*' -o -iname 'notice*' \) | sort | while read -r file; do
      printf '\n==== %s %s\n\n' "$module" "${file##*/}"
      cat "$file"
    done
  done
}

# kib is what a tree takes on a disk, the same on every file system.
kib() { find "$1/usr" "$1/etc" -printf '%y %s\n' | awk '{k += $1 == "f" ? int(($2 + 1023) / 1024) : 1} END {print k}'; }

# package NAME UNIT PROGRAM...
package() {
  local name=$1 unit=$2 tree=$work/$1 doc
  shift 2
  doc=$tree/usr/share/doc/$name
  cp -R "$name" "$tree"
  find "$tree" -type d -exec chmod 755 {} + -o -exec chmod 644 {} +
  find "$tree/usr/share/man" -type f -exec gzip -9n {} +
  install -D -t "$tree/usr/bin" "${@/#/$programs/}"
  install -D -m 644 copyright "$doc/copyright" # the folder: git keeps no empty ones
  gzip -9nc ../../CHANGELOG.md >"$doc/changelog.gz"
  licences "${@/#/$programs/}" | gzip -9n >"$doc/licences.gz"
  for script in postinst prerm postrm; do
    sed "s/@NAME@/$name/g; s/@UNIT@/$unit/g" $script >"$tree/DEBIAN/$script"
    chmod 755 "$tree/DEBIAN/$script"
  done
  (cd "$tree" && find etc -type f -printf '/%p\n' | sort >DEBIAN/conffiles)
  (cd "$tree" && find usr -type f | sort | xargs md5sum >DEBIAN/md5sums)
  sed -i "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@KIB@/$(kib "$tree")/" "$tree/DEBIAN/control"
  find "$tree" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
  dpkg-deb --root-owner-group -Zgzip -z6 --build "$tree" "$out/${name}_${version}_$arch.deb" >/dev/null
  echo "$out/${name}_${version}_$arch.deb"
}

package cistern cisternd.service cisternd cistern
package cistern-agent cistern-agent.service cistern-agent
