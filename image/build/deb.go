package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxFile bounds one file of a package, in bytes.
const maxFile = 256 << 20

// unpack gives those regular files of a Debian package (deb(5)) that want takes,
// by their path without a leading slash.
func unpack(ctx context.Context, deb string, want func(name string) bool) (map[string][]byte, error) {
	f, err := os.Open(deb)
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	defer f.Close()
	var files map[string][]byte
	err = dataMember(ctx, bufio.NewReaderSize(f, 1<<20), func(data io.Reader) (err error) {
		files, err = untar(data, want)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", path.Base(deb), err)
	}
	return files, nil
}

var errNotDeb = errors.New("no Debian package")

// dataMember finds the member data.tar.* of an ar archive and hands read what it
// decompresses to.
func dataMember(ctx context.Context, r io.Reader, read func(io.Reader) error) error {
	magic := make([]byte, 8)
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != "!<arch>\n" {
		return errNotDeb
	}
	for {
		head := make([]byte, 60)
		if _, err := io.ReadFull(r, head); err != nil {
			return fmt.Errorf("%w: it has no data", errNotDeb)
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(head[48:58])), 10, 64)
		if err != nil || size < 0 {
			return fmt.Errorf("%w: a member without a size", errNotDeb)
		}
		member := io.LimitReader(r, size)
		switch strings.TrimRight(string(head[:16]), " /") {
		case "data.tar":
			return read(member)
		case "data.tar.xz":
			return unxz(ctx, member, read)
		case "data.tar.zst":
			z, err := zstd.NewReader(member, zstd.WithDecoderConcurrency(1))
			if err != nil {
				return err
			}
			defer z.Close()
			return read(z)
		}
		if _, err := io.CopyN(io.Discard, r, size+size%2); err != nil {
			return fmt.Errorf("%w: cut short", errNotDeb)
		}
	}
}

// unxz has xz decompress, on all processors: a kernel's package takes in Go three
// times as long.
func unxz(ctx context.Context, r io.Reader, read func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "xz", "-dc", "-T0")
	cmd.Stdin = r
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := read(out); err != nil {
		cancel()
		return errors.Join(err, cmd.Wait())
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		return err
	}
	return cmd.Wait()
}

func untar(r io.Reader, want func(string) bool) (map[string][]byte, error) {
	files := map[string][]byte{}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if h.Typeflag != tar.TypeReg || !want(name) {
			continue
		}
		if h.Size > maxFile {
			return nil, fmt.Errorf("%s has %d bytes", name, h.Size)
		}
		var body bytes.Buffer
		if _, err := io.Copy(&body, t); err != nil {
			return nil, err
		}
		files[name] = body.Bytes()
	}
}
