package actors

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// Curl fetches url with curl on a host, through a proxy unless that is empty,
// and returns the SHA-256 of the body in hexadecimal. The body is not kept.
func Curl(ctx context.Context, host *lab.Host, proxy, url string) (digest string, err error) {
	args := []string{"--silent", "--show-error", "--fail", "--output", "-"}
	if proxy != "" {
		args = append(args, "--proxy", proxy)
	}
	h := sha256.New()
	p := host.Command("curl", append(args, url)...)
	p.Stdout = h
	if err := p.Start(ctx); err != nil {
		return "", err
	}
	if err := p.Wait(); err != nil {
		said, _ := os.ReadFile(p.OutputFile)
		return "", fmt.Errorf("curl %s on %s: %w: %s", url, host.Name(), err, said)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Digest is the SHA-256 of a file in hexadecimal.
func Digest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("hash %s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// get fetches a small body.
func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
}
