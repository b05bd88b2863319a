#!/usr/bin/env bash
# Runs the parts of the issues' figures at full size, a line each: figure, bound,
# ok or short. Names of parts (image.bios), or of several (image), as arguments run
# these alone; each part takes less than nine minutes.
set -uo pipefail
cd "$(dirname "$0")/.."
export CISTERN_SOAK=1
fail=0

# part: package, pattern of its tests, or fuzz for its fuzz targets.
parts="
run.origin       ./hwtest        TestSecondAnswerDoesNotTouchTheOrigin
apt.install      ./hwtest        TestAptInstallsThroughTheBox
fill.kill        ./hwtest        TestKillInTheMiddleOfAFill
torrent.clients  ./hwtest        TestTorrentClientsDrinkFromTheBox
swarm.untouched  ./hwtest        TestUntouched
swarm.secure     ./hwtest        TestSecureTracker
swarm.enforce    ./hwtest        TestUnmodifiedClients/enforce/mixed
swarm.intercept  ./hwtest        TestUnmodifiedClients/intercept/mixed
swarm.e.aria2    ./hwtest        TestUnmodifiedClients/enforce/aria2
swarm.e.qbit     ./hwtest        TestUnmodifiedClients/enforce/qbittorrent
swarm.e.transm   ./hwtest        TestUnmodifiedClients/enforce/transmission
swarm.e.rtorrent ./hwtest        TestUnmodifiedClients/enforce/rtorrent
swarm.i.aria2    ./hwtest        TestUnmodifiedClients/intercept/aria2
swarm.i.qbit     ./hwtest        TestUnmodifiedClients/intercept/qbittorrent
swarm.i.transm   ./hwtest        TestUnmodifiedClients/intercept/transmission
swarm.i.rtorrent ./hwtest        TestUnmodifiedClients/intercept/rtorrent
swarm.sources    ./peering       TestSwarmAndMirrors
swarm.limits     ./peering       TestUploadCaps|TestSeedRatio|TestSeedingHours|TestConnectionsStay
swarm.hostile    ./peering       TestBadPeers|TestLyingTrackers|TestHostileTorrents|TestBadMirrors
swarm.fuzz       ./peering       fuzz
swarm.fuzz.lan   ./peering/tracker fuzz
swarm.fuzz.links ./peering/metalink fuzz
swarm.fuzz.feed  ./peering/feed  fuzz
swarm.follow     ./peering       TestWatchedFolder|TestFeedIsFollowed
swarm.kill       ./hwtest        TestKillInTheMiddleOfATorrent
input.bad        ./hwtest        TestBadInput
http.conformance ./hwtest        TestConformance
http.cold        ./hwtest        TestColdRange
http.herd        ./hwtest        TestHerd
http.crowd       ./hwtest        TestManyColdObjects
http.explain     ./cache/proxy   Outcomes
http.slow        ./hwtest        TestWhyWasThatSlow
http.offline     ./hwtest        TestOffline
http.loris       ./hwtest        TestSlowLoris
http.rebinding   ./cache/origin  Rebinding|Refuses
http.metalink    ./hwtest        TestMetalinkClients
http.hostile     ./cache/proxy   Hostile|Smuggling|OneClient|Paths|NoWayInside|Redirects
store.evict      ./cache/evict   Figures
store.crash      ./cache         ^TestCrash
store.power      ./cache         ^TestPowerCut
store.flips      ./cache         ^TestFlips
store.open       ./cache         ^TestScale
store.rss        ./hwtest        ^TestWeight
store.disk       ./hwtest        TestDisk
store.volume     ./hwtest        TestVolume
norm.engine      ./multicast/norm Figures|Flood
norm.cast        ./multicast     Figures
norm.libnorm     ./hwtest        TestNormWithLibnorm
norm.large       ./hwtest        TestNormLargeWithLibnorm
norm.wire.few    ./hwtest        TestNormWire/random/(1|8_receivers,_5)
norm.wire.many   ./hwtest        TestNormWire/random/32
norm.wire.lossy  ./hwtest        TestNormWire/random/8_receivers,_20
norm.wire.b20    ./hwtest        TestNormWire/bursts/.*_20_Mbit
norm.wire.b100   ./hwtest        TestNormWire/bursts/.*100
norm.time        ./hwtest        TestNormTime
norm.scale       ./hwtest        TestNormScale
norm.cpu         ./hwtest        TestNormCPU
norm.fuzz        ./multicast/norm fuzz
image.ready      ./hwtest        TestImageReady
image.uefi       ./hwtest        ^TestImageStarts$/uefi
image.bios       ./hwtest        ^TestImageStarts$/bios
image.secure     ./hwtest        ^TestImageStarts$/secure
image.nvme       ./hwtest        ^TestImageStarts$/nvme
image.sata       ./hwtest        ^TestImageStarts$/sata
image.arm64      ./hwtest        TestImageStartsOnARM/uefi
image.arm64secure ./hwtest       TestImageStartsOnARM/secure
image.arm64uboot ./hwtest        TestImageStartsOnARM/uboot
image.make.amd64 ./hwtest        TestImageMake/amd64
image.make.arm64 ./hwtest        TestImageMake/arm64
image.intercept  ./hwtest        TestImageIntercept
image.disks      ./hwtest        TestImageDisks
image.multicast  ./hwtest        TestImageMulticast
image.update     ./hwtest        TestImageUpdate
image.refused    ./hwtest        TestImageRefuses
image.panic      ./hwtest        TestImageFallsBack/panic
image.hang       ./hwtest        TestImageFallsBack/hang
image.deaf       ./hwtest        TestImageFallsBack/deaf
image.reset      ./hwtest        TestImageReset
image.full       ./hwtest        TestImageFull
image.nodisk     ./hwtest        ^TestImageNoDisk$/(damaged|readonly)
image.nodisk.full ./hwtest       ^TestImageNoDisk$/full
image.system     ./hwtest        TestImageSystem
image.install    ./hwtest        TestImageInstalls
image.stick      ./hwtest        TestImageStick
image.channel    ./hwtest        TestImageChannel
image.network    ./hwtest        TestImageNetwork
image.powercut   ./hwtest        TestImagePowerCut
deb              ./hwtest        ^TestDebianPackages$
qualify          ./hwtest        ^TestQualifyOnALAN$
"

story() { # name of the part, package, pattern
  local out
  out=$(go test -tags soak -count=1 -timeout 9m -v "$2" -run "$3" 2>&1) || { fail=1; echo "$out" | grep -E '^\s*(---|.*_test.go)'; }
  echo "$out" | sed -n 's/.*figure: //p'
  echo "$out" | grep -qE '^ok' && echo "$1: ok" || echo "$1: short"
}
fuzz() { # name of the part, package
  if FUZZTIME=140s hwtest/fuzz.sh "$2" | grep -vE '^fuzz: elapsed|^PASS'; then
    echo "$1: ok"
  else
    fail=1
    echo "$1: short"
  fi
}
demo() {
  CGO_ENABLED=0 go build -trimpath -o bin/ ./hwtest/demo && bin/demo lan --size "${SIZE:-200MB}" --bin bin || fail=1
}

named() { # names: "image" is every part image.…; one that is no part stays
  local name
  for name in "$@"; do
    awk -v name="$name" '$1 == name || index($1, name ".") == 1 {print $1; n++} END {if (!n) print name}' <<<"$parts"
  done
}

for part in $(named ${*:-$(awk 'NF {print $1}' <<<"$parts") demo}); do
  echo "== $part"
  [ "$part" = demo ] && { demo; continue; }
  read -r package pattern < <(awk -v part="$part" '$1 == part {print $2, $3}' <<<"$parts") || {
    echo "no such part: $part ($(awk 'NF {print $1}' <<<"$parts" | tr '\n' ' ')demo)"
    exit 2
  }
  [ "$pattern" = fuzz ] && { fuzz "$part" "$package"; continue; }
  story "$part" "$package" "$pattern"
done
exit $fail
