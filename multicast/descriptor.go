package multicast

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cistern-edge/cistern/cache/content"
)

// Extents: an object is sent as NORM objects of extentSize bytes, more if it
// would be more than maxExtents of them.
const (
	extentSize = 64 << 20
	maxExtents = 128
)

// extentLength gives the extent size for an object of size bytes, a whole
// number of the store's blocks.
func extentLength(size int64) int64 {
	blocks := (size/maxExtents + content.BlockSize) / content.BlockSize
	return max(extentSize, blocks*content.BlockSize)
}

// descriptor is the NORM_INFO of an extent. It needs no signature of its own:
// the box signs the message around it.
type descriptor struct {
	id     content.ID
	index  uint32
	off    int64 // of the extent in the object
	length int64
}

const (
	descriptorMagic = "CiEx\x01"
	descriptorSize  = len(descriptorMagic) + 32 + 8 + 4 + 8 + 8
)

func (d descriptor) append(b []byte) []byte {
	b = append(b, descriptorMagic...)
	b = append(b, d.id.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(d.id.Size))
	b = binary.BigEndian.AppendUint32(b, d.index)
	b = binary.BigEndian.AppendUint64(b, uint64(d.off))
	return binary.BigEndian.AppendUint64(b, uint64(d.length))
}

// parseDescriptor reads a descriptor of an extent of the object id, cut into
// extents of each bytes. One that does not fit into the object is an error.
func parseDescriptor(b []byte, id content.ID, each int64) (descriptor, error) {
	if len(b) != descriptorSize || string(b[:len(descriptorMagic)]) != descriptorMagic {
		return descriptor{}, errors.New("descriptor: not one of this version")
	}
	b = b[len(descriptorMagic):]
	var d descriptor
	copy(d.id.Root[:], b)
	d.id.Size = int64(binary.BigEndian.Uint64(b[32:]))
	d.index = binary.BigEndian.Uint32(b[40:])
	d.off = int64(binary.BigEndian.Uint64(b[44:]))
	d.length = int64(binary.BigEndian.Uint64(b[52:]))
	if d.id != id {
		return d, fmt.Errorf("descriptor: of another object, %s", d.id)
	}
	if want := extent(d.index, id.Size, each); want.Len() == 0 || d.off != want.Off || d.length != want.Len() {
		return d, fmt.Errorf("descriptor: extent %d with %d bytes at %d is not part of %s", d.index, d.length, d.off, id)
	}
	return d, nil
}

// extent is the range of extent i of an object of size bytes.
func extent(i uint32, size, each int64) content.Range {
	if int64(i) >= extents(size, each) {
		return content.Range{}
	}
	off := int64(i) * each
	return content.Range{Off: off, End: off + min(each, size-off)}
}

// extents is how many extents an object of size bytes has.
func extents(size, each int64) int64 { return (size-1)/each + 1 }
