// Package content says what a file is and what proves that bytes are that file.
//
// It holds the nouns that everything else shares: an [ID] names a file by its
// bytes, a [Layer] proves parts of it, [Trust] says how far the bytes may be
// believed, a [Source] brings them and a [Sink] takes them. It does no I/O.
// Start reading at [Source].
package content

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// Sizes of the parts of a file, in bytes.
const (
	// LeafSize is the unit of the Merkle tree (BEP 52).
	LeafSize = 16 << 10
	// BlockSize is the unit in which the store keeps and proves bytes. It is a
	// whole subtree of LeavesPerBlock leaves.
	BlockSize = 1 << 20
	// LeavesPerBlock is how many leaves a full block has.
	LeavesPerBlock = BlockSize / LeafSize
)

// UnknownSize is the size of an object whose end has not been seen.
const UnknownSize = -1

// Trust says what vouches for an object's bytes, and so which outlets may have
// them. Higher values vouch for more.
type Trust int

const (
	// TrustTransport is plain HTTP with no digest: nothing but the connection
	// vouches for the bytes.
	TrustTransport Trust = iota
	// TrustWhole is a digest of the whole object from somebody believed.
	TrustWhole
	// TrustPieces is a proof for every piece before any reader sees it.
	TrustPieces
)

// String gives "transport", "whole" or "pieces".
func (t Trust) String() string {
	switch t {
	case TrustWhole:
		return "whole"
	case TrustPieces:
		return "pieces"
	default:
		return "transport"
	}
}

// Object is what is known of a file before its bytes are here.
type Object struct {
	// ID is the identity that somebody believed has promised; zero if none.
	ID ID
	// Size in bytes, or UnknownSize.
	Size int64
	// Trust that the bytes will have once they passed their proof.
	Trust Trust
	// Layer proves each block as it arrives; nil if nothing does. Its root must
	// be ID.Root.
	Layer *Layer
}

// ErrNotHere says that a Source has none of the ranges that are missing. The
// next Source is asked.
var ErrNotHere = errors.New("source has none of what is missing")

// ErrBadPiece says that bytes did not match the hash promised for them. They
// have been dropped; the range is missing again.
var ErrBadPiece = errors.New("piece does not match its hash")

// ErrFull says that the store has no room for the bytes.
var ErrFull = errors.New("store is full")

// A Source brings the bytes of one object to a Sink. Four kinds exist: sibling
// boxes, the swarm, HTTP mirrors and multicast.
type Source interface {
	// Name is a short label for logs and figures, such as
	// "origin deb.example.org", "swarm" or "multicast".
	Name() string
	// Fill writes ranges that the sink misses until nothing is missing (nil),
	// ctx is done (its error), it has none of what is missing (ErrNotHere), or
	// it fails (any other error). It writes nothing after it returns.
	Fill(ctx context.Context, sink Sink) error
}

// A Sink takes the bytes of one object. The store's Fill is the one in the
// product. Its methods may be called from several goroutines at once.
//
// A byte range is missing, then written, then accepted. Written bytes can be
// read back by the Source (to hash a piece, to decode a block) and by nobody
// else; accepted ones wake the readers. The sink hashes what it accepts against
// the object's Layer where it has one.
type Sink interface {
	// Size is the object's size, or UnknownSize.
	Size() int64
	// SetSize says the size once it is known. It fails if another size was said
	// before or bytes lie beyond it.
	SetSize(size int64) error
	// Missing lists what nobody has accepted yet, in order, whether claimed or
	// not. While the size is unknown the last range ends at math.MaxInt64.
	Missing() []Range
	// Claim hands out a missing range that no other Claim overlaps until
	// Release, at most max bytes long. It begins at the byte at; if at is
	// negative, where readers wait most, else at the first missing byte. ok is
	// false if there is no such range.
	Claim(at, max int64) (r Range, ok bool)
	// Release gives back what is left of a claim; accepted bytes in it stay.
	Release(r Range)
	// Wanted signals that readers now wait for bytes nobody has claimed. One
	// signal may stand for several. Sources that never look again may ignore it.
	Wanted() <-chan struct{}
	// WriteAt stores bytes without letting readers see them. Bytes already
	// accepted are left as they are; others may be written again.
	io.WriterAt
	// ReadAt reads bytes back that were written or accepted.
	io.ReaderAt
	// Accept says that the bytes of r, all within the size, are written and that
	// the Source has checked them as far as it can. It returns ErrBadPiece
	// (wrapped) if the object's Layer refutes a block; that block is then missing
	// again. It blocks while the disk is behind.
	Accept(r Range) error
}

// Offer is what a way in answers when it is asked for a name: the head of the
// answer and the ways to its bytes.
type Offer struct {
	// Status and Header are the answer's head, as HTTP has it.
	Status int
	Header http.Header
	// Requested and Received are when the request left and the head arrived.
	Requested, Received time.Time
	// Object is what is known of the bytes.
	Object Object
	// Sources bring the bytes into the store, cheapest first. Empty when the
	// answer can only be passed through.
	Sources []Source
	// Body passes the answer through without the store. It may be nil when
	// Sources is not empty. Whoever takes the Offer closes it or starts the
	// first Source, never both.
	Body io.ReadCloser
}
