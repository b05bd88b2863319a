package qualify

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cistern-edge/cistern/multicast/fec"
)

// rate runs work, which does so many bytes each time, and gives bytes a second.
func rate(ctx context.Context, limit time.Duration, bytes int, work func()) int64 {
	work() // tables and caches
	start, done := time.Now(), 0
	for time.Since(start) < limit && ctx.Err() == nil {
		work()
		done += bytes
	}
	return int64(float64(done) / time.Since(start).Seconds())
}

// hashes takes what one core does.
func (q *Qualifier) hashes(ctx context.Context) {
	p := &q.report.Processor
	p.Cores = runtime.NumCPU()
	block := make([]byte, 1<<20)
	p.SHA1 = rate(ctx, q.budget.hash, len(block), func() { sha1.Sum(block) })
	p.SHA256 = rate(ctx, q.budget.hash, len(block), func() { sha256.Sum256(block) })
	const k, rows, symbol = 180, 8, 1408
	code, err := fec.New(k, rows)
	if err != nil { // cannot be: the numbers are constants
		return
	}
	source, parity := fec.Buffers(k, fec.Stride(symbol)), fec.Buffers(rows, fec.Stride(symbol))
	p.FEC = rate(ctx, q.budget.hash, k*symbol, func() { err = code.Encode(source, 0, parity) })
	if err != nil {
		p.FEC = 0
	}
}

// heat has all cores work, while watch is asked once in a while; it gives the
// speed of the last quarter as a part of that of the first.
func heat(ctx context.Context, limit time.Duration, watch func()) (kept float64) {
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	var done atomic.Int64
	var wait sync.WaitGroup
	for range runtime.NumCPU() {
		wait.Go(func() {
			for block := make([]byte, 64<<10); ctx.Err() == nil; {
				sha256.Sum256(block)
				done.Add(1)
			}
		})
	}
	const parts = 20
	var quarters [4]int64
	last := int64(0)
	for i := range parts {
		pause(ctx, limit/parts)
		now := done.Load()
		quarters[i*4/parts] += now - last
		last = now
		watch()
	}
	stop()
	wait.Wait()
	return float64(quarters[3]) / float64(max(quarters[0], 1))
}
