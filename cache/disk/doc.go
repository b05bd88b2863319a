// Package disk keeps the bytes of objects on one file system, and beside them
// what says that the bytes are right.
//
// A [Volume] is one directory. A large object is a [Blob]: a body, sparse until
// it is whole, and a sidecar with the hashes of each block that is durable. Small
// objects lie in [Segments], files that are only appended to and leave whole. Both
// carry a card for each object: a record that means nothing here and from which
// the owner can make its index again.
//
// The package knows objects by number only. It does not decide what stays or
// goes, does not retry, and never returns bytes of a small object, a hash or a
// card whose checksum is wrong. Numbers are the owner's and must never repeat on
// a volume. Start reading at [Open], [Volume.Create] and [Segments.Append]; the
// formats are in sidecar.go and record.go.
package disk
