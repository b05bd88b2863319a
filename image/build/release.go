package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"aead.dev/minisign"
	"github.com/klauspost/compress/zstd"

	"github.com/cistern-edge/cistern/image"
)

// blockBytes is the grain of bmap and of holes.
const blockBytes = 4096

// release makes the files that are published, one architecture at a time.
type release struct {
	Config
	files             []string
	rawBytes, xzBytes int64
	rawSHA256, xzSHA  string
	updateBytes       int64
	updateSHA256      string
}

// machine is how people who flash call an architecture.
func (r *release) machine() string {
	if r.Arch == "arm64" {
		return "generic-aarch64"
	}
	return "generic-x86-64"
}

func (r *release) stem() string { return "cistern_" + r.machine() + "-" + r.Version }

func (r *release) write(name string, body []byte) error {
	if err := os.WriteFile(filepath.Join(r.Out, name), body, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	r.files = append(r.files, name)
	return nil
}

// update writes the update file.
func (r *release) update(slot []byte) error {
	payload, err := squeeze(slot, zstd.SpeedFastest)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	err = image.WriteUpdateHead(&b, image.Manifest{
		Format: image.UpdateFormat, Product: image.Product, Arch: r.Arch, Version: r.Version, Serial: r.Serial,
		Released: r.Date.UTC(), Data: image.DataFormat, SlotBytes: int64(len(slot)), SlotSHA256: sha256Bytes(slot),
		PayloadBytes: int64(len(payload)), PayloadSHA256: sha256Bytes(payload),
	}, r.Key)
	if err != nil {
		return err
	}
	b.Write(payload)
	r.updateBytes, r.updateSHA256 = int64(b.Len()), sha256Bytes(b.Bytes())
	return r.write(r.stem()+".update", b.Bytes())
}

// image compresses the raw image, in blocks of a fixed size, so that the number
// of threads does not change a byte, and writes its map of blocks.
func (r *release) image(ctx context.Context, raw string) (err error) {
	if r.rawSHA256, err = sha256File(raw); err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	r.rawBytes = image.DiskSize()
	name := r.stem() + ".img.xz"
	out, err := os.Create(filepath.Join(r.Out, name))
	if err != nil {
		return fmt.Errorf("compress the image: %w", err)
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, "xz", "-c", "-0", "-T2", "--block-size=67108864", raw)
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("compress the image: xz: %w", err)
	}
	info, err := out.Stat()
	if err != nil {
		return fmt.Errorf("compress the image: %w", err)
	}
	r.files, r.xzBytes = append(r.files, name), info.Size()
	if r.xzSHA, err = sha256File(out.Name()); err != nil {
		return fmt.Errorf("compress the image: %w", err)
	}
	return r.bmap(raw)
}

// bmap lists the blocks that hold something (bmap-tools, version 2.0).
func (r *release) bmap(raw string) error {
	f, err := os.Open(raw)
	if err != nil {
		return fmt.Errorf("map the image: %w", err)
	}
	defer f.Close()
	blocks, mapped, from := int(r.rawBytes/blockBytes), 0, -1
	zeros, block := make([]byte, blockBytes), make([]byte, blockBytes)
	var ranges strings.Builder
	sum := sha256.New()
	for i := range blocks + 1 {
		used := false
		if i < blocks {
			if _, err := io.ReadFull(f, block); err != nil {
				return fmt.Errorf("map the image: %w", err)
			}
			used = !bytes.Equal(block, zeros)
		}
		switch {
		case used && from < 0:
			from = i
			sum.Reset()
		case !used && from >= 0:
			span := fmt.Sprintf("%d-%d", from, i-1)
			if from == i-1 {
				span = fmt.Sprint(from)
			}
			fmt.Fprintf(&ranges, "        <Range chksum=\"%x\">%s</Range>\n", sum.Sum(nil), span)
			from = -1
		}
		if used {
			mapped++
			sum.Write(block)
		}
	}
	text := func(sum string) string {
		return fmt.Sprintf(`<?xml version="1.0" ?>
<bmap version="2.0">
    <ImageSize>%d</ImageSize>
    <BlockSize>%d</BlockSize>
    <BlocksCount>%d</BlocksCount>
    <MappedBlocksCount>%d</MappedBlocksCount>
    <ChecksumType>sha256</ChecksumType>
    <BmapFileChecksum>%s</BmapFileChecksum>
    <BlockMap>
%s    </BlockMap>
</bmap>
`, r.rawBytes, blockBytes, blocks, mapped, sum, ranges.String())
	}
	// The file's own checksum is taken with zeros in its place.
	own := sha256Bytes([]byte(text(strings.Repeat("0", 64))))
	return r.write(r.stem()+".img.bmap", []byte(text(own)))
}

// papers writes what goes beside image and update: bill of materials, sources,
// channel, list for the imager, sums and signature.
func (r *release) papers(packages map[string][]byte) error {
	if err := r.writeJSON(r.stem()+".spdx.json", r.spdx()); err != nil {
		return err
	}
	if err := r.write(r.stem()+".sources.txt", r.sources(packages)); err != nil {
		return err
	}
	if err := r.writeJSON("latest-"+r.machine()+".json", map[string]any{
		"version": r.Version, "serial": r.Serial, "released": r.Date.UTC(), "update": r.stem() + ".update",
		"bytes": r.updateBytes, "sha256": r.updateSHA256,
	}); err != nil {
		return err
	}
	entry := map[string]any{
		"name": "Cistern " + r.Version, "description": "An edge cache for your LAN (" + r.machine() + ")",
		"icon": "cistern.png", "url": r.stem() + ".img.xz",
		"extract_size": r.rawBytes, "extract_sha256": r.rawSHA256,
		"image_download_size": r.xzBytes, "image_download_sha256": r.xzSHA, "release_date": r.Date.UTC().Format(time.DateOnly),
	}
	if r.Arch == "arm64" {
		entry["devices"] = []string{"pi4-64bit"}
	}
	if err := r.writeJSON("os_list-"+r.machine()+".json", map[string]any{"os_list": []any{entry}}); err != nil {
		return err
	}
	var sums strings.Builder
	for _, name := range slices.Sorted(slices.Values(r.files)) {
		sum, err := sha256File(filepath.Join(r.Out, name))
		if err != nil {
			return fmt.Errorf("sum up: %w", err)
		}
		fmt.Fprintf(&sums, "%s  %s\n", sum, name)
	}
	name := r.stem() + ".SHA256SUMS"
	if err := r.write(name, []byte(sums.String())); err != nil {
		return err
	}
	return r.write(name+".minisig", minisign.SignWithComments(r.Key, []byte(sums.String()), name, r.stem()))
}

func (r *release) writeJSON(name string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return r.write(name, append(text, '\n'))
}

// spdx is the bill of materials (SPDX 2.3).
func (r *release) spdx() map[string]any {
	own := func(id, name, version, supplier, purl string) map[string]any {
		p := map[string]any{
			"SPDXID": "SPDXRef-" + id, "name": name, "versionInfo": version, "supplier": supplier,
			"downloadLocation": "NOASSERTION", "filesAnalyzed": false, "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION",
		}
		if purl != "" {
			p["externalRefs"] = []any{map[string]string{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}}
		}
		return p
	}
	image := own("image", r.stem(), r.Version, "Organization: Cistern", "")
	packages := []any{image}
	relations := []any{map[string]string{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-image"}}
	contains := func(p map[string]any) {
		packages = append(packages, p)
		relations = append(relations, map[string]string{"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS", "relatedSpdxElement": p["SPDXID"].(string)})
	}
	for i, p := range r.Lock.Packages {
		deb := own(fmt.Sprintf("deb-%d", i), p.Name, p.Version, "Organization: Debian", "pkg:deb/debian/"+p.Name+"@"+p.Version+"?arch="+r.Arch)
		deb["checksums"] = []any{map[string]string{"algorithm": "SHA256", "checksumValue": p.SHA256}}
		deb["sourceInfo"] = "built from source package " + p.Source
		contains(deb)
	}
	for i, m := range goModules(slices.Sorted(maps.Values(r.Programs))) {
		contains(own(fmt.Sprintf("go-%d", i), m.path, m.version, "NOASSERTION", "pkg:golang/"+m.path+"@"+m.version))
	}
	return map[string]any{
		"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": r.stem(),
		"documentNamespace": "urn:sha256:" + r.rawSHA256,
		"creationInfo":      map[string]any{"created": r.Date.UTC().Format(time.RFC3339), "creators": []string{"Tool: mkimage"}},
		"packages":          packages, "relationships": relations,
	}
}

// sources says from which source packages the Debian parts were built and under
// what terms, as the licences ask.
func (r *release) sources(packages map[string][]byte) []byte {
	var b strings.Builder
	b.WriteString("Source packages of Debian " + r.Lock.Suite + " that parts of this image were built from.\n" +
		"\"apt-get source NAME=VERSION\" fetches each from the Debian archive.\n\n")
	for _, p := range r.Lock.Packages {
		name, version, _ := strings.Cut(p.Source, " ")
		fmt.Fprintf(&b, "%s=%s  (binary %s %s)\n", name, version, p.Name, p.Version)
	}
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		if strings.HasSuffix(name, "/copyright") {
			fmt.Fprintf(&b, "\n==== %s\n%s\n", strings.TrimPrefix(name, "usr/share/doc/"), packages[name])
		}
	}
	return []byte(b.String())
}
