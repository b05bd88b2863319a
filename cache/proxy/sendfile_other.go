//go:build !linux

package proxy

// patience is of use where a file is sent by sendfile_linux.go.
type patience struct{}

func newPatience() patience { return patience{} }
