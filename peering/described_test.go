package peering

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// linking serves files by their paths with a Link field beside.
func linking(t *testing.T, files set, field func(base string) string) string {
	t.Helper()
	var base string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to, ok := strings.CutPrefix(r.URL.Path, "/by/"); ok {
			w.Header().Set("Link", field(base))
			http.Redirect(w, r, "/"+to, http.StatusFound)
			return
		}
		data, ok := files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	base = s.URL
	return base
}

func mirrorURLs(snap Torrent) (urls []string) {
	for _, m := range snap.Mirrors {
		urls = append(urls, m.URL)
	}
	slices.Sort(urls)
	return urls
}

// Who adds the address of a file whose server names its torrent and mirrors gets
// the torrent with these, after a start too.
func TestFileLeadsToItsTorrentAndMirrors(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(70, 300_000)}
	text, _ := build(t, "disk.img", files, 64<<10, modes["hybrid"])
	served := set{"disk.img": files["disk.img"], "t": text}
	other, _ := webServer(t, 0, files)
	for name, field := range map[string]string{
		"torrent":  `<%[1]s/t>; rel=describedby; type="application/x-bittorrent", <%[2]s/disk.img>; rel=duplicate`,
		"metalink": `<%[1]s/disk.meta4>; rel=describedby; type="application/metalink4+xml"`,
	} {
		t.Run(name, func(t *testing.T) {
			atOnce(t)
			served := set{"disk.img": served["disk.img"], "t": served["t"]}
			web := linking(t, served, func(base string) string { return fmt.Sprintf(field, base, other) })
			served["disk.meta4"] = fmt.Appendf(nil, `<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="disk.img"><url>%[1]s/by/disk.img</url><url>%s/disk.img</url>
<metaurl mediatype="torrent">%[1]s/t</metaurl></file></metalink>`, web, other)
			b := newBox(t, nil)
			want := []string{other + "/disk.img", web + "/by/disk.img"}
			slices.Sort(want)
			snap := b.complete(b.add([]byte(web + "/by/disk.img")).InfoHash)
			b.holds("btih:"+snap.InfoHash+"/disk.img", files["disk.img"])
			if got := mirrorURLs(snap); !slices.Equal(got, want) {
				t.Errorf("mirrors are %v, want %v", got, want)
			}
			b.stop()
			b.start()
			b.complete(snap.InfoHash)
			if kept := b.share(snap.InfoHash).specNow().WebSeeds; len(kept) != 2 {
				t.Errorf("after a start the mirrors are %v", kept)
			}
		})
	}
}

// Each file of a torrent comes from its own mirrors, wherever they have it.
func TestMetalinkOfManyFiles(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(71, 3*64<<10), "doc/README": random(72, 64<<10), "doc/same name": random(73, 64<<10)}
	text, _ := build(t, "release", files, 64<<10, modes["hybrid"])
	one, _ := webServer(t, 0, set{"a.img": files["disk.img"], "t": text})
	two, _ := webServer(t, 0, set{"b": files["doc/README"], "c": files["doc/same name"]})
	link := func(torrent string) []byte {
		return fmt.Appendf(nil, `<metalink xmlns="urn:ietf:params:xml:ns:metalink">
<file name="disk.img"><size>%[4]d</size><url>%[1]s/a.img</url>%[3]s</file>
<file name="release/doc/README"><size>65536</size><url>%[2]s/b</url>%[3]s</file>
<file name="doc/same name"><size>65536</size><url>%[2]s/c</url>%[3]s</file>
<file name="disk.img"><size>5</size><url>%[2]s/another</url></file>
<file name="nothing"><size>65536</size><url>%[2]s/d</url></file></metalink>`, one, two, torrent, len(files["disk.img"]))
	}
	for name, add := range map[string]func(*box) Torrent{
		"names the torrent": func(b *box) Torrent {
			return b.add(link("<metaurl mediatype=\"torrent\">" + one + "/t</metaurl>"))
		},
		"of what is here": func(b *box) Torrent {
			b.add(text)
			return b.add(link(""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			atOnce(t)
			b := newBox(t, nil)
			snap := b.complete(add(b).InfoHash)
			for path, data := range files {
				b.holds("btih:"+snap.InfoHash+"/"+path, data)
			}
			if snap.Down != snap.Size || len(snap.Mirrors) != 3 {
				t.Errorf("down %d of %d, mirrors %v", snap.Down, snap.Size, mirrorURLs(snap))
			}
			b.stop()
			b.start()
			if again := b.complete(snap.InfoHash); len(again.Mirrors) != 3 {
				t.Errorf("after a restart the mirrors are %v", mirrorURLs(again))
			}
			if err := b.swarm.Remove(t.Context(), snap.InfoHash); err != nil {
				t.Fatal(err)
			}
			if left, _ := os.ReadDir(filepath.Join(b.cfg.Dir, joinedDir)); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A mirror's answers name further ones; those that are of no use make way.
func TestMirrorsNameMirrors(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(74, 300_000)}
	_, mi := build(t, "disk.img", files, 64<<10, modes["v1"])
	none, _ := webServer(t, 0, nil)
	good, _ := webServer(t, 0, files)
	var urls []string
	for i := range maxWorking {
		urls = append(urls, fmt.Sprintf("%s/%d", none, i))
	}
	web := linking(t, files, func(string) string { return "<" + good + "/disk.img>; rel=duplicate" })
	b := newBox(t, nil)
	snap := b.complete(b.add(seededBy(t, mi, append(urls, web+"/by/disk.img")...)).InfoHash)
	b.holds("btih:"+snap.InfoHash+"/disk.img", files["disk.img"])
	if got := mirrorURLs(snap); !slices.Contains(got, good+"/disk.img") {
		t.Errorf("mirrors are %v", got)
	}
}

func TestDescriptionsOfNoTorrent(t *testing.T) {
	atOnce(t)
	files := set{"disk.img": random(75, 100_000), "page": []byte("<html></html>"), "empty": nil}
	web := linking(t, files, func(base string) string { return "<" + base + "/page>; rel=describedby; type=application/x-bittorrent" })
	b := newBox(t, nil)
	for _, input := range []string{
		web + "/disk.img", web + "/page", web + "/empty", web + "/by/disk.img",
		`<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="a"><size>1</size><url>http://a.example/</url></file></metalink>`,
		`<metalink xmlns="urn:ietf:params:xml:ns:metalink"/>`,
	} {
		if _, err := b.swarm.Add(t.Context(), []byte(input)); !errors.Is(err, ErrSpec) {
			t.Errorf("%s: %v", input, err)
		}
	}
	if list := b.swarm.Stats().Torrents; len(list) != 0 {
		t.Errorf("joined %+v", list)
	}
}
