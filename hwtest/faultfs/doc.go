// Package faultfs is a file system that fails on purpose. It shows a store what
// a real disk shows it on its worst day: power lost between two writes, a disk
// pulled, full, or turned read-only.
//
// Mount puts a FUSE file system on a directory of the test's. The process under
// test runs upon it as a child; the test kills the child, calls FS.PowerCut and
// starts the child again on what a disk may have kept.
//
// # What survives a power cut
//
// Nothing is durable before its sync returned. Of the rest any part may
// survive, drawn from the seed:
//
//   - Data and size of a file are durable as of its last fsync, fdatasync or
//     msync. Of each 4 KiB block written since, either version may be found, or
//     sectors of 512 bytes of both. A file that grew may have any size between
//     the two, with zeros where data is lost; one that shrank has either size.
//     Versions between the last sync and the last write are not brought back.
//   - Names (created, linked, renamed, removed) are durable as of the last fsync
//     of their directory, and not before: neither fsync of the file itself nor
//     that of a directory above or below is enough. Each change survives alone,
//     whatever its order, but after those that it builds on: the earlier ones of
//     the same names. A rename is one step, also across directories: both of its
//     names change or none. This is the strictest reading that POSIX allows for
//     atomic renames. With Config.Ordered the changes survive in their order, as
//     from the journal of ext4: fsync of a file then makes its own names durable
//     and every change before them.
//   - Modes, owners and times survive always.
//
// Nothing becomes durable with time, as it does on a real disk after seconds: a
// file that is removed takes space in the backing directory until its directory
// is synced or the power is cut.
//
// Pages written through a mapping reach the file system at msync, munmap, exit
// or writeback; but for msync they are writes like others, not synced. What the
// kernel still holds of them when the power goes is lost. sync(2), syncfs and
// sync_file_range make nothing durable. O_SYNC and O_DSYNC do.
//
// # What it refuses to do
//
// No symbolic links, devices, extended attributes or O_TMPFILE. A full disk
// says so at write, fallocate and msync, but raises no SIGBUS at the first touch
// of a mapped hole: FUSE learns of that page too late. Locks (flock, fcntl) are
// the kernel's own and go with their process.
//
// A file of the mount must never be mapped by the test process itself, which is
// the one that answers the page fault: with the runtime stopped for a
// collection, both would wait forever. Plain reads and writes are fine.
//
// Start reading at Mount, then disk.go (names), body.go (data) and cut.go.
package faultfs
