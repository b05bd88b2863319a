package proxy

import (
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// closeBehind is how far from each other ranges are that one request brings
// sooner than two.
const closeBehind = 2 << 20

// endless stands for the size of what has not been seen, in whole blocks.
const endless = 1 << 60

// coldRange is the Range field to ask upstream with for what a request asks for
// and nothing is here of: whole blocks, for only these can be kept. "" asks for
// all of it. Of several ranges it is the first, with those that follow close
// behind; the others are asked for when they are sent.
func coldRange(r *http.Request) string {
	ranges, err := httpcache.ParseRange(r.Header.Get("Range"), endless)
	if err != nil || len(ranges) == 0 || r.Method != http.MethodGet {
		return ""
	}
	first := span(ranges[0])
	switch {
	case first.Off > endless/2: // the last bytes
		n := blocks(content.Range{End: endless - first.Off}).End
		return "bytes=-" + strconv.FormatInt(n, 10)
	case first.End == endless:
		if first = blocks(first); first.Off == 0 {
			return ""
		}
		return "bytes=" + strconv.FormatInt(first.Off, 10) + "-"
	}
	first = blocks(first)
	for _, r := range ranges[1:] {
		next := blocks(span(r))
		if next.Off >= first.Off && next.Off <= first.End+closeBehind && next.End < endless/2 {
			first.End = max(first.End, next.End)
		}
	}
	return "bytes=" + strconv.FormatInt(first.Off, 10) + "-" + strconv.FormatInt(first.End-1, 10)
}

// blocks are the whole blocks that a range touches.
func blocks(r content.Range) content.Range {
	const block = content.BlockSize
	return content.Range{Off: r.Off / block * block, End: (r.End-1)/block*block + block}
}

// wholeOf is the head of the whole that a part which can be kept is a part of,
// or why the part cannot: parts are only put together that have a strong
// validator (RFC 9111 §3.4).
func wholeOf(part *httpcache.Response) (whole *httpcache.Response, why string) {
	whole, _, size, err := httpcache.Whole(part)
	switch {
	case err != nil:
		return nil, err.Error()
	case size < 0:
		return nil, "a part of what has no size yet is not kept"
	case httpcache.IfRange(whole) == "":
		return nil, "a part without a strong validator is not kept (RFC 9111 §3.4)"
	}
	return whole, ""
}

// wanted is what of a stored body a request is for, in whole blocks. all says
// that it is for everything.
func (f *found) wanted(r *http.Request) (want content.Range, all bool) {
	size := f.size()
	asked, err := httpcache.Ranges(r, f.head, size)
	switch {
	case err != nil:
		return content.Range{}, false // it is told so
	case size < 0 || len(asked) == 0:
		return content.Range{End: max(size, 0)}, true
	}
	return blocks(span(asked[0])).Clip(content.Range{End: size}), false
}

// expected is what of the body will be read, as far as that is one range.
func (p *plan) expected() content.Range {
	if len(p.ranges) == 0 {
		return content.Range{End: math.MaxInt64}
	}
	return span(p.ranges[0])
}

// expect tells the store what will be read, and says which byte to wait for, and
// how long, before the answer begins. What upstream has to be asked for is no hit,
// although the rest of the object is here.
func (a *answer) expect(rd *cache.Reader, rng content.Range) (off int64, patience time.Duration) {
	missing, ok := rd.Expect(rng)
	if !ok {
		return rng.Off, headPatience
	}
	if a.status.Hit {
		a.status = httpcache.CacheStatus{Fwd: httpcache.FwdPartial, Detail: a.status.Detail}
	}
	return missing, partPatience
}

// suit makes of an open answer that is not kept what its client has asked for,
// though upstream was asked for something else. False: it cannot be made of it.
func suit(r *http.Request, o *content.Offer) bool {
	head := httpcache.NewResponse(r, o.Status, o.Header, o.Requested, o.Received)
	switch o.Status {
	case http.StatusOK:
		if httpcache.EvaluateConditional(r, head) == http.StatusNotModified {
			closeBody(o)
			o.Status, o.Header, o.Body = http.StatusNotModified, head.Header.Clone(), http.NoBody
			httpcache.NotModifiedHeader(o.Header)
		}
		return true
	case http.StatusPartialContent:
		return cut(r, o, head)
	}
	return true
}

// cut makes of a part the smaller part that its client has asked for.
func cut(r *http.Request, o *content.Offer, head *httpcache.Response) bool {
	whole, have, size, err := httpcache.Whole(head)
	if err != nil || o.Body == nil {
		return r.Header.Get("Range") != "" // whatever it is, it is upstream's answer to a range
	}
	length, total := size, "*"
	if size < 0 { // beyond what is here nothing is known
		length = have.Start + have.Length
	} else {
		total = strconv.FormatInt(size, 10)
	}
	asked, err := httpcache.Ranges(r, whole, length)
	if err != nil || len(asked) != 1 || size < 0 && strings.HasPrefix(r.Header.Get("Range"), "bytes=-") {
		return false
	}
	want := asked[0]
	if want.Start < have.Start || want.Start+want.Length > have.Start+have.Length {
		return false
	}
	if _, err := io.CopyN(io.Discard, o.Body, want.Start-have.Start); err != nil {
		return false
	}
	o.Header = o.Header.Clone()
	o.Header.Set("Content-Range", strings.TrimSuffix(want.ContentRange(0), "0")+total)
	o.Header.Set("Content-Length", strconv.FormatInt(want.Length, 10))
	for _, name := range []string{"Content-Digest", "Content-Md5"} { // of the larger part
		o.Header.Del(name)
	}
	o.Body = clipped{io.LimitReader(o.Body, want.Length), o.Body}
	return true
}

// clipped is the beginning of a body.
type clipped struct {
	io.Reader
	io.Closer
}
