package proxy

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/hwtest/faultfs"
)

// TestAFailingDiskCutsNobody: the disk fails while a client loads what is being
// stored; the client gets all of it, and what it asks next passes through.
func TestAFailingDiskCutsNobody(t *testing.T) {
	body := testBody(6 << 20)
	for _, c := range []struct {
		name  string
		fault faultfs.Fault
		rng   string
		want  []byte
	}{
		{"read-only", faultfs.ReadOnly, "", body},
		{"gone", faultfs.Gone, "", body},
		{"a range", faultfs.ReadOnly, "bytes=1000-5999999", body[1000:6000000]},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The first has less room, by what the index needs: bodies go here.
			disk := faultfs.Mount(t, t.TempDir(), faultfs.Config{})
			store, err := cache.Open(cache.Config{Dir: t.TempDir(), Volumes: []string{disk.Dir()}, MinFree: 1, Small: true}, quiet())
			if err != nil {
				t.Fatal(err)
			}
			goOn := make(chan struct{})
			s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "" || r.URL.Path != "/x" {
					file(body, `"one"`, "max-age=60")(w, r)
					return
				}
				w.Header().Set("ETag", `"one"`)
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
				_, _ = w.Write(body[:len(body)/2])
				w.(http.Flusher).Flush()
				<-goOn
				_, _ = w.Write(body[len(body)/2:])
			})
			b := boxOn(t, store, loopback(t), nil, nil)
			b.get(s.URL + "/here")
			b.settle()
			req, err := http.NewRequest(http.MethodGet, s.URL+"/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.rng != "" {
				req.Header.Set("Range", c.rng)
			}
			resp, err := b.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got := make([]byte, len(body)/4)
			if _, err := io.ReadFull(resp.Body, got); err != nil {
				t.Fatal(err)
			}
			if v := store.Stats().Volumes; v[1].Bytes == 0 {
				t.Fatalf("not tried: %+v", v)
			}
			disk.Fail(c.fault)
			defer disk.Fail(faultfs.Healthy)
			close(goOn)
			rest, err := io.ReadAll(resp.Body)
			if got = append(got, rest...); err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("%d bytes of %d, the same %v: %v", len(got), len(c.want), bytes.HasPrefix(c.want, got), err)
			}
			if r := b.get(s.URL + "/here"); r.StatusCode != http.StatusOK || !bytes.Equal(r.body, body) {
				t.Errorf("what was here: %s, %s, %d bytes", r.Response.Status, r.status(), len(r.body))
			}
			if r := b.get(s.URL + "/y"); !bytes.Equal(r.body, body) || strings.Contains(r.status(), ";hit") {
				t.Errorf("then %s", r.status())
			}
		})
	}
}
