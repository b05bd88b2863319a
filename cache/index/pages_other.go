//go:build !linux

package index

// residentFiles is not known here.
func residentFiles() (int64, error) { return 0, nil }

// dropMapped does nothing: nobody asks for it where residentFiles is not known.
func dropMapped(string) error { return nil }
