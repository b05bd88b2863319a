package index

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumSize is what a record's checksum takes.
const sumSize = crc32.Size

// seal makes the record that is kept under key: CRC-32C over key and value, then
// the value. Badger can hand out a flipped bit without an error.
func seal(key, value []byte) []byte {
	record := make([]byte, sumSize+len(value))
	copy(record[sumSize:], value)
	binary.BigEndian.PutUint32(record, sum(key, value))
	return record
}

// unseal is the value of a record, part of it, or ErrDamaged.
func unseal(key, record []byte) ([]byte, error) {
	if len(record) < sumSize || binary.BigEndian.Uint32(record) != sum(key, record[sumSize:]) {
		return nil, ErrDamaged
	}
	return record[sumSize:], nil
}

func sum(key, value []byte) uint32 {
	// The length keeps a byte from moving between key and value.
	var head [2]byte
	binary.BigEndian.PutUint16(head[:], uint16(len(key)))
	crc := crc32.Update(0, castagnoli, head[:])
	return crc32.Update(crc32.Update(crc, castagnoli, key), castagnoli, value)
}
