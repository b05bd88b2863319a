package admin

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"
)

// remembered is how many seconds of traffic the panel draws.
const remembered = 120

// rates remembers the traffic of the last two minutes.
type rates struct {
	// mu guards what follows.
	mu     sync.Mutex
	last   totals
	primed bool
	served []int64 // bytes in each second, the newest last
	filled []int64
}

// sample looks at the totals once each second until ctx is done.
func (r *rates) sample(ctx context.Context, look func() totals) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		r.add(look())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// add notes one second. Totals shrink when objects go; that is no traffic.
func (r *rates) add(t totals) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.primed {
		r.served = push(r.served, max(t.served-r.last.served, 0))
		r.filled = push(r.filled, max(t.filled-r.last.filled, 0))
	}
	r.last, r.primed = t, true
}

func push(list []int64, n int64) []int64 {
	list = append(list, n)
	return list[max(len(list)-remembered, 0):]
}

// chart is the traffic as the panel draws it: two lines on one scale, in a box
// of remembered by 40 units.
type chart struct {
	Served, Filled         int64 // bytes in the last second
	Peak                   int64
	ServedLine, FilledLine string // points of an SVG polyline
	ServedArea             string // points of a polygon down to the axis
}

const chartHeight = 40

func (r *rates) chart() chart {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := chart{Peak: 1}
	for i := range r.served {
		c.Peak = max(c.Peak, r.served[i], r.filled[i])
	}
	if n := len(r.served); n > 0 {
		c.Served, c.Filled = r.served[n-1], r.filled[n-1]
	}
	c.ServedLine, c.FilledLine = points(r.served, c.Peak), points(r.filled, c.Peak)
	first := strconv.Itoa(remembered - len(r.served) + 1)
	bottom := strconv.Itoa(chartHeight)
	c.ServedArea = first + "," + bottom + " " + c.ServedLine + " " + strconv.Itoa(remembered) + "," + bottom
	return c
}

// points places the newest second at the right edge.
func points(list []int64, peak int64) string {
	var b strings.Builder
	for i, n := range list {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.Itoa(remembered - len(list) + 1 + i))
		b.WriteByte(',')
		b.WriteString(strconv.FormatFloat(chartHeight-float64(n)/float64(peak)*(chartHeight-3), 'f', 1, 64))
	}
	return b.String()
}
