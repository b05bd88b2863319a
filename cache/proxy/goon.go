package proxy

import (
	"errors"
	"io"
	"math"
	"net/http"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
)

// goOn brings the rest of an answer from upstream when the store broke off in
// the middle of it: a disk that fails must not cut what clients are loading. It
// reports whether the answer is whole now. Answers of several parts are let go.
func (p *plan) goOn(s *Server, w http.ResponseWriter, r *http.Request, f *found, sent int64, err error) bool {
	if !diskFailed(err) || len(p.ranges) > 1 || r.Context().Err() != nil {
		return false
	}
	q, qerr := s.query(r)
	if qerr != nil {
		return false // of /o/: no address to ask at
	}
	rest := content.Range{Off: sent, End: math.MaxInt64}
	switch {
	case len(p.ranges) == 1:
		rest = content.Range{Off: p.ranges[0].Start + sent, End: span(p.ranges[0]).End}
	case p.size >= 0:
		rest.End = p.size
	}
	if rest.Off == 0 {
		return false // a new answer would come, that need not fit the head
	}
	s.count.upstream.Add(1)
	offer, rerr := s.up.Resume(r.Context(), s.whole(q, nil), f.head, rest)
	if rerr != nil {
		s.log.Info("answer was cut", "title", f.name, "err", errors.Join(err, rerr))
		return false
	}
	defer closeBody(offer)
	if offer.Status != http.StatusPartialContent || offer.Body == nil {
		return false // it is another one by now
	}
	n, cerr := copyThrough(w, io.LimitReader(offer.Body, rest.Len()))
	s.served(r, nil, n)
	s.log.Info("answer went on from upstream", "title", f.name, "bytes", n, "err", errors.Join(err, cerr))
	return cerr == nil && (rest.End == math.MaxInt64 || n == rest.Len())
}

// diskFailed reports whether an answer broke off for a reason of the store's
// disks, and not of the client's or the origin's.
func diskFailed(err error) bool {
	err = disk.Classify(err)
	return errors.Is(err, content.ErrFull) || errors.Is(err, disk.ErrGone) || errors.Is(err, disk.ErrReadOnly)
}
