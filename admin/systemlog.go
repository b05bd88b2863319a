package admin

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/cistern-edge/cistern/admin/client"
)

// systemUnit is who writes the lines that name nobody.
const systemUnit = "system"

// levels are those of log/slog, the worst last.
var levels = [...]string{"debug", "info", "warn", "error"}

// readLogQuery reads what a request asks for; the error says what is wrong.
func readLogQuery(v url.Values) (q client.LogQuery, err error) {
	q.Level, q.Unit = strings.ToLower(v.Get("level")), v.Get("unit")
	if q.Level != "" && !slices.Contains(levels[:], q.Level) {
		return q, fmt.Errorf("there is no level %q; there are %s", q.Level, strings.Join(levels[:], ", "))
	}
	if lines := v.Get("lines"); lines != "" {
		if q.Lines, err = strconv.Atoi(lines); err != nil || q.Lines < 1 {
			return q, fmt.Errorf("lines=%q is no number from 1 up", lines)
		}
	}
	return q, nil
}

// logLines picks lines of the appliance's log (log/slog's text and JSON), oldest
// first. One that says no level goes with the line of its unit before it.
func logLines(text []byte, q client.LogQuery) []string {
	least := slices.Index(levels[:], q.Level) // -1: all
	var list []string
	before := map[string]int{}
	for line := range bytes.Lines(text) {
		line := string(bytes.TrimRight(line, "\r\n"))
		unit := systemUnit
		if i := strings.LastIndex(line, " unit="); i >= 0 && !strings.ContainsAny(line[i+1:], " \"") {
			unit = line[i+len(" unit="):]
		}
		level, ok := levelOf(line)
		if !ok {
			level = before[unit]
		}
		before[unit] = level
		if level >= least && (q.Unit == "" || q.Unit == unit) {
			list = append(list, line)
		}
	}
	if q.Lines > 0 && len(list) > q.Lines {
		list = list[len(list)-q.Lines:]
	}
	return list
}

// levelOf finds the level that a line says of itself.
func levelOf(line string) (int, bool) {
	for i, name := range levels {
		word := strings.ToUpper(name)
		if strings.Contains(line, " level="+word+" ") || strings.Contains(line, `"level":"`+word+`"`) {
			return i, true
		}
	}
	return 0, false
}

// systemLog answers with the appliance's log; with "download" a browser keeps it.
func (s *Server) systemLog(w http.ResponseWriter, r *http.Request) {
	if s.parts.System == nil {
		problem(w, http.StatusServiceUnavailable, noSystem)
		return
	}
	q, err := readLogQuery(r.URL.Query())
	if err != nil {
		problem(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	text, err := s.parts.System.Log(r.Context())
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if r.URL.Query().Has("download") {
		w.Header().Set("Content-Disposition", `attachment; filename="cistern.log"`)
	}
	for _, line := range logLines(text, q) {
		_, _ = w.Write([]byte(line + "\n")) // who asked has gone
	}
}
