package peering

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/anacrolix/torrent/metainfo"
)

// A torrent is kept between runs as one file of the directory: the .torrent
// file <infohash>.torrent, or <infohash>.magnet while the info is not known.
// Beside it <infohash>.mirrors lists the mirrors of single files, which a .torrent file
// has no place for. Those in made/ the box has made. Nothing about progress is kept here: the
// store knows what it has.
const (
	joinedDir = "torrents"
	madeDir   = "made"
	hashesDir = "sha1"
	givenExt  = ".given"
	mirrorExt = ".mirrors"
)

func (s *Swarm) makeDirs() error {
	for _, dir := range []string{joinedDir, madeDir, hashesDir} {
		if err := os.MkdirAll(filepath.Join(s.cfg.Dir, dir), 0o700); err != nil {
			return fmt.Errorf("make torrent directory: %w", err)
		}
	}
	return nil
}

// save keeps a torrent for the next start.
func (s *Swarm) save(spec *Spec, made bool) error {
	dir := filepath.Join(s.cfg.Dir, joinedDir)
	if made {
		dir = filepath.Join(s.cfg.Dir, madeDir)
	}
	if spec.Info == nil {
		return writeFile(filepath.Join(dir, spec.Key()+".magnet"), []byte(spec.magnet()))
	}
	var text bytes.Buffer
	mi := metainfo.MetaInfo{InfoBytes: spec.Info, UrlList: spec.WebSeeds, PieceLayers: spec.Layers}
	for _, tr := range spec.Trackers {
		mi.AnnounceList = append(mi.AnnounceList, []string{tr})
	}
	if err := mi.Write(&text); err != nil {
		return fmt.Errorf("encode torrent %s: %w", spec.Key(), err)
	}
	if err := writeFile(filepath.Join(dir, spec.Key()+".torrent"), text.Bytes()); err != nil {
		return err
	}
	return removeFile(filepath.Join(dir, spec.Key()+".magnet"))
}

// keptMirror is a line of a list of mirrors.
type keptMirror struct {
	File int    `json:"file"` // its index in the torrent
	URL  string `json:"url"`
}

func (s *Swarm) mirrorFile(key string) string {
	return filepath.Join(s.cfg.Dir, joinedDir, key+mirrorExt)
}

// saveMirrors adds mirrors to those that are kept for a torrent.
func (s *Swarm) saveMirrors(spec *Spec) error {
	list := s.keptMirrors(spec.Key(), spec.layout)
	before := len(list)
	for _, m := range spec.mirrors {
		if !slices.Contains(list, m) && len(list) < maxHints {
			list = append(list, m)
		}
	}
	if len(list) == before {
		return nil
	}
	var kept []keptMirror
	for _, m := range list {
		kept = append(kept, keptMirror{m.file, m.url})
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("encode mirrors of torrent %s: %w", spec.Key(), err)
	}
	return writeFile(s.mirrorFile(spec.Key()), text)
}

// keptMirrors reads the mirrors that are kept for a torrent; what is faulty in the
// list is passed over.
func (s *Swarm) keptMirrors(key string, l *layout) (list []fileMirror) {
	var kept []keptMirror
	text, err := os.ReadFile(s.mirrorFile(key))
	if err != nil || json.Unmarshal(text, &kept) != nil || l == nil {
		return nil
	}
	for _, m := range kept {
		if m.File >= 0 && m.File < len(l.files) && len(list) < maxHints && checkURL(m.URL, "http", "https") == nil {
			list = append(list, fileMirror{m.File, m.URL})
		}
	}
	return list
}

// saveLayers adds the piece layers that came from peers to a kept torrent.
func (sh *share) saveLayers() {
	spec := *sh.specNow()
	if !spec.layout.v2 || spec.layout.checkLayers(spec.Layers) == nil {
		return
	}
	spec.Layers = sh.metainfo().PieceLayers
	sh.swarm.adding.Lock()
	defer sh.swarm.adding.Unlock()
	if sh.ctx.Err() != nil {
		return // removed meanwhile
	}
	if err := sh.swarm.save(&spec, sh.made); err != nil {
		sh.swarm.log.Warn("failed to keep the piece layers of a torrent", "title", spec.Name, "err", err)
	}
}

// forget removes what is kept of a torrent.
func (s *Swarm) forget(keys []string) error {
	var failed []error
	for _, key := range keys {
		for _, name := range []string{joinedDir + "/" + key + ".torrent", joinedDir + "/" + key + ".magnet", joinedDir + "/" + key + givenExt, joinedDir + "/" + key + mirrorExt, madeDir + "/" + key + ".torrent"} {
			failed = append(failed, removeFile(filepath.Join(s.cfg.Dir, name)))
		}
	}
	return errors.Join(failed...)
}

// resume joins what is kept in the directory. A file that is not readable is
// left alone and named in the log.
func (s *Swarm) resume() {
	for _, dir := range []string{joinedDir, madeDir} {
		entries, err := os.ReadDir(filepath.Join(s.cfg.Dir, dir))
		if err != nil {
			s.log.Error("failed to read the torrents that were kept", "err", err)
		}
		for _, e := range entries {
			ext := filepath.Ext(e.Name())
			if ext != ".torrent" && ext != ".magnet" {
				continue
			}
			if err := s.resumeFile(filepath.Join(s.cfg.Dir, dir, e.Name()), dir == madeDir); err != nil {
				s.log.Warn("failed to resume a torrent", "file", e.Name(), "err", err)
			}
		}
	}
}

func (s *Swarm) resumeFile(path string, made bool) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Size() > 2*MaxMetainfo {
		return fmt.Errorf("file has %d bytes", st.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	spec, err := s.readKept(text)
	if err != nil {
		return err
	}
	if made {
		// Its object is all there is to it: without it there is nothing to serve.
		f := spec.layout.files[0]
		if _, ok := s.store.ByID(f.id()); !ok {
			return removeFile(path)
		}
	}
	spec.mirrors = s.keptMirrors(spec.Key(), spec.layout)
	_, err = s.add(spec, made, st.ModTime(), func(*Spec, bool) error { return nil })
	return err
}

// readKept reads a kept file. Unlike one from outside, it may lack piece layers:
// peers have them.
func (s *Swarm) readKept(text []byte) (*Spec, error) {
	if !bytes.HasPrefix(text, []byte("d")) {
		return ParseSpec(text, s.limits())
	}
	var file metainfoFile
	if err := decode(text, &file); err != nil {
		return nil, err
	}
	spec := &Spec{Info: file.Info, Layers: file.Layers, WebSeeds: usableWebSeeds(file.URLList)}
	for _, tier := range file.AnnounceList {
		spec.Trackers = append(spec.Trackers, usableTrackers(tier)...)
	}
	return spec, spec.setInfo(s.limits())
}

// magnet gives the magnet URI of a torrent.
func (s *Spec) magnet() string {
	m := metainfo.MagnetV2{DisplayName: s.Name, Trackers: s.Trackers, Params: map[string][]string{"ws": s.WebSeeds}}
	if s.V1 != ([20]byte{}) {
		m.InfoHash.Set(s.V1)
	}
	if s.V2 != ([32]byte{}) {
		m.V2InfoHash.Set(s.V2)
	}
	var peers strings.Builder
	for _, p := range s.Peers {
		peers.WriteString("&x.pe=" + p.String())
	}
	return m.String() + peers.String()
}

// writeFile replaces a file so that a crash leaves the old or the new one.
func writeFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", filepath.Base(path), err), os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
