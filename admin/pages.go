package admin

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"math"
	"net/http"
	"strconv"
	"time"
)

//go:embed panel
var files embed.FS

// pages are the parsed templates.
type pages struct{ all map[string]*template.Template }

// parsePages reads the pages; each stands in the same layout.
func parsePages() (*pages, error) {
	p := &pages{all: map[string]*template.Template{}}
	for _, name := range []string{"login", "setup", "panel", "explain", "hardware", "system"} {
		t, err := template.New(name).Funcs(template.FuncMap{
			"bytes": formatBytes, "bits": formatBits, "ago": formatAgo, "percent": formatPercent,
			"progress": newProgress, "millis": formatMillis,
			"last": func(end int64) int64 { return end - 1 },
		}).ParseFS(files, "panel/layout.html", "panel/"+name+".html")
		if err != nil {
			return nil, fmt.Errorf("read page %s: %w", name, err)
		}
		p.all[name] = t
	}
	return p, nil
}

// render gives one template of a page.
func (p *pages) render(page, name string, data any) ([]byte, error) {
	var b bytes.Buffer
	if err := p.all[page].ExecuteTemplate(&b, name, data); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// write answers with a whole page.
func (p *pages) write(w http.ResponseWriter, status int, page string, data any) {
	html, err := p.render(page, page, data)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(html) // fails only if the client has gone
}

// assets serves the style sheet, the script and the icon.
func assets() http.Handler {
	dir, err := fs.Sub(files, "panel/assets")
	if err != nil { // the name is no valid path: cannot be
		return http.NotFoundHandler()
	}
	server := http.StripPrefix("/assets/", http.FileServerFS(dir))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		server.ServeHTTP(w, r)
	})
}

// formatBytes writes a number of bytes in powers of 1000, three digits.
func formatBytes(n int64) string { return scaled(float64(n), "B", "kB", "MB", "GB", "TB", "PB") }

// formatBits writes a rate in bits each second.
func formatBits(n int64) string { return scaled(float64(n), "bit/s", "kbit/s", "Mbit/s", "Gbit/s") }

func scaled(v float64, units ...string) string {
	unit := 0
	for v >= 999.5 && unit < len(units)-1 {
		v /= 1000
		unit++
	}
	decimals := 0
	if unit > 0 && v < 99.95 {
		decimals = 1
		if v < 9.995 {
			decimals = 2
		}
	}
	return strconv.FormatFloat(v, 'f', decimals, 64) + "\u00a0" + units[unit]
}

// formatPercent writes a fraction of 1 in percent.
func formatPercent(f float64) string {
	decimals := 1
	if f == 0 || f >= 0.0995 {
		decimals = 0
	}
	return strconv.FormatFloat(f*100, 'f', decimals, 64) + "\u00a0%"
}

// formatMillis writes a time that is given in milliseconds.
func formatMillis(ms float64) string {
	return (time.Duration(ms*1000) * time.Microsecond).Round(100 * time.Microsecond).String()
}

// progress is a bar with its figure.
type progress struct {
	Percent, Fraction float64
	Label             string
}

// newProgress rounds down: what is not whole never shows as 100 %.
func newProgress(percent float64, label string) progress {
	return progress{Percent: percent, Fraction: math.Floor(percent) / 100, Label: label}
}

// formatAgo writes how long ago something was.
func formatAgo(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < 2*time.Second:
		return "now"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "\u00a0s ago"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "\u00a0min ago"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "\u00a0h ago"
	default:
		return strconv.Itoa(int(d.Hours()/24)) + "\u00a0days ago"
	}
}
