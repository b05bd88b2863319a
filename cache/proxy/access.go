package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/httpcache"
)

// accessLog writes a line for each request, in the Common Log Format with "hit"
// or "-" behind it. Lines are gathered and written each second. The file is
// opened anew when somebody has moved it away, and moved to a second one, with
// .1 behind its name, when it is large. A nil accessLog writes nothing. Safe for
// concurrent use.
type accessLog struct {
	path string
	log  *slog.Logger

	// mu guards what follows.
	mu    sync.Mutex
	lines []byte
	stamp []byte // the time, as lines have it
	at    int64  // that stamp is of, in seconds since 1970

	// What follows belongs to run.
	spare  []byte
	file   *os.File
	failed bool
}

const (
	// maxLines is how much is gathered when the disk does not follow: further
	// lines are lost.
	maxLines = 4 << 20
	// maxAccessLog is when the file is moved away, in bytes.
	maxAccessLog = 64 << 20
)

// access is one request, as its line tells.
type access struct {
	from           netip.Addr
	method, target string
	proto          string
	status         int
	bytes          int64 // of the body
	hit            bool
	task           bool // the end of the Server waits for the line

	// What follows is for the journal (past.go).
	began, first time.Time // when it came, and when its answer began to leave
	key          string    // of what it is for; "" for the box's own
	why, detail  string
	fwd          httpcache.Fwd
	answer       *answer
}

// add takes a line down.
func (l *accessLog) add(now time.Time, a *access) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) > maxLines {
		return
	}
	if at := now.Unix(); at != l.at || len(l.stamp) == 0 {
		l.at, l.stamp = at, now.AppendFormat(l.stamp[:0], ` - - [02/Jan/2006:15:04:05 -0700] "`)
	}
	b := a.from.AppendTo(l.lines)
	b = append(b, l.stamp...)
	b = append(appendQuoted(b, a.method), ' ')
	b = append(appendQuoted(b, a.target), ' ')
	b = append(append(b, a.proto...), `" `...)
	if a.status == 0 { // the client left first
		b = append(b, '-')
	} else {
		b = strconv.AppendInt(b, int64(a.status), 10)
	}
	b = append(b, ' ')
	b = strconv.AppendInt(b, a.bytes, 10)
	if a.hit {
		l.lines = append(b, " hit\n"...)
		return
	}
	l.lines = append(b, " -\n"...)
}

// enterLog takes down a request that has been answered, once.
func (s *Server) enterLog(a *access) {
	if a.task {
		defer s.tasks.Done()
	}
	if a.method != "" {
		now := time.Now()
		s.access.add(now, a)
		s.remember(now, a)
	}
	*a = access{}
}

// appendQuoted writes text so that it cannot end a quoted part of a line.
func appendQuoted(b []byte, text string) []byte {
	const digits = "0123456789abcdef"
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			b = append(b, '\\', 'x', digits[c>>4], digits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// run writes the lines until ctx is done, and then the last ones.
func (l *accessLog) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		err := l.flush()
		if err != nil && !l.failed {
			l.log.Warn("failed to write the access log", "err", err)
		}
		l.failed = err != nil
	}
	if l.file != nil {
		_ = l.file.Close() // all was written, or its failure said
	}
}

// flush writes what was gathered.
func (l *accessLog) flush() error {
	l.mu.Lock()
	lines := l.lines
	l.lines, l.spare = l.spare[:0], lines
	l.mu.Unlock()
	if len(lines) == 0 {
		return nil
	}
	if err := l.reopen(); err != nil {
		return err
	}
	if _, err := l.file.Write(lines); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// reopen makes sure that the file is the one at the path, and not too large.
func (l *accessLog) reopen() error {
	there, err := os.Stat(l.path)
	if err == nil && there.Size() >= maxAccessLog {
		if err = os.Rename(l.path, l.path+".1"); err == nil {
			err = fs.ErrNotExist
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if l.file != nil {
		if here, serr := l.file.Stat(); serr == nil && err == nil && os.SameFile(here, there) {
			return nil
		}
		_ = l.file.Close() // what it had was written
	}
	l.file, err = os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	return err
}
