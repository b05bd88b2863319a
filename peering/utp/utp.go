// Package utp stands in for github.com/anacrolix/go-utp, which cannot be
// resolved, over the pure-Go github.com/anacrolix/utp. It holds only the
// surface that anacrolix/torrent uses.
package utp
