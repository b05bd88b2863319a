package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/cistern-edge/cistern/cache"
)

// multipart prepares a multipart/byteranges body (RFC 9110 §14.6) and returns
// its length.
func (p *plan) multipart() (length int64) {
	mediaType := p.head.Get("Content-Type")
	p.boundary = boundary()
	for i, r := range p.ranges {
		head := "--" + p.boundary + "\r\n"
		if i > 0 {
			head = "\r\n" + head
		}
		if mediaType != "" {
			head += "Content-Type: " + mediaType + "\r\n"
		}
		head += "Content-Range: " + r.ContentRange(p.size) + "\r\n\r\n"
		p.parts = append(p.parts, []byte(head))
		length += int64(len(head)) + r.Length
	}
	tail := "\r\n--" + p.boundary + "--\r\n"
	p.parts = append(p.parts, []byte(tail))
	p.head.Set("Content-Type", "multipart/byteranges; boundary="+p.boundary)
	return length + int64(len(tail))
}

// sendParts sends what multipart prepared.
func (p *plan) sendParts(ctx context.Context, w http.ResponseWriter, rd *cache.Reader, sent func(int64)) error {
	for i, head := range p.parts {
		n, err := w.Write(head)
		sent(int64(n))
		if err != nil || i == len(p.ranges) {
			return err
		}
		if err := stream(ctx, w, rd, span(p.ranges[i]), sent); err != nil {
			return fmt.Errorf("send part %d: %w", i, err)
		}
	}
	return io.ErrUnexpectedEOF // not reached: the last part has no range
}
