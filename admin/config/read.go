package config

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Load reads and checks a file. If it can be opened, the error is Faults.
func Load(path string) (Config, error) {
	file, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	cfg, err := Parse(data)
	var faults Faults
	if errors.As(err, &faults) {
		for i := range faults {
			faults[i].File = path
		}
	}
	return cfg, err
}

// Parse reads and checks a configuration; keys left out have their default. The
// error is Faults, all of them.
func Parse(data []byte) (Config, error) {
	if len(data) > maxFile {
		return Config{}, Faults{{Problem: fmt.Sprintf("is larger than %d bytes", maxFile)}}
	}
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		return Config{}, Faults{syntaxFault(err)}
	}
	cfg := Default()
	r := reader{lines: keyLines(data), refused: map[string]bool{}}
	r.table(reflect.ValueOf(&cfg).Elem(), tree, "")
	var values Faults
	if errors.As(cfg.Validate(), &values) {
		for _, f := range values {
			if !r.refused[f.Key] { // its default stands in, and is not what is wrong
				f.Line = r.lineOf(f.Key)
				r.faults = append(r.faults, f)
			}
		}
	}
	if err := r.faults.err(); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

func syntaxFault(err error) Fault {
	var at *toml.DecodeError
	if !errors.As(err, &at) {
		return Fault{Problem: err.Error()}
	}
	line, _ := at.Position()
	return Fault{Line: line, Key: strings.Join(at.Key(), "."), Problem: strings.TrimPrefix(at.Error(), "toml: ")}
}

// reader puts a decoded file into a Config and goes on after each fault, which
// the library's own strict mode does not.
type reader struct {
	lines   map[string]int
	faults  Faults
	refused map[string]bool // keys with one value, and that was wrong
}

// lineOf gives the line of a key, or of the nearest table around it.
func (r *reader) lineOf(key string) int {
	for {
		if line, ok := r.lines[key]; ok {
			return line
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
}

func (r *reader) fault(key, problem string, args ...any) {
	r.faults.add(r.lineOf(key), key, problem, args...)
}

func (r *reader) table(into reflect.Value, tree map[string]any, path string) {
	fields := map[string]reflect.Value{}
	for i := range into.NumField() {
		fields[into.Type().Field(i).Tag.Get("toml")] = into.Field(i)
	}
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		key := name
		if path != "" {
			key = path + "." + name
		}
		if field, ok := fields[name]; ok {
			r.refused[key] = !r.value(field, tree[name], key) && field.Kind() != reflect.Slice
			continue
		}
		problem := "is not a known key"
		if near := nearest(name, slices.Sorted(maps.Keys(fields))); near != "" {
			problem += fmt.Sprintf("; did you mean %q?", near)
		}
		r.fault(key, "%s", problem)
	}
}

// value puts v where it belongs and reports whether there was no fault in it.
func (r *reader) value(into reflect.Value, v any, key string) bool {
	before := len(r.faults)
	switch n, number := v.(int64); {
	case number && into.CanInt() && (n < 0 || into.OverflowInt(n)):
		r.fault(key, "%d is out of range", n)
	case number && into.CanInt():
		into.SetInt(n)
	case into.Type() == reflect.TypeFor[netip.Prefix]():
		r.text(key, v, func(s string) error {
			p, err := parsePrefix(s)
			into.Set(reflect.ValueOf(p))
			return err
		})
	default:
		r.other(into, v, key)
	}
	return len(r.faults) == before
}

func (r *reader) other(into reflect.Value, v any, key string) {
	if u, ok := into.Addr().Interface().(encoding.TextUnmarshaler); ok {
		r.text(key, v, func(s string) error { return u.UnmarshalText([]byte(s)) })
		return
	}
	switch tree := v.(type) {
	case map[string]any:
		if into.Kind() == reflect.Struct {
			r.table(into, tree, key)
			return
		}
	case []any:
		if into.Kind() == reflect.Slice {
			r.list(into, tree, key)
			return
		}
	case string, bool:
		if rv := reflect.ValueOf(v); rv.Type() == into.Type() {
			into.Set(rv)
			return
		}
	}
	r.fault(key, "is %s, want %s", kindOf(v), wanted(into))
}

func (r *reader) text(key string, v any, use func(string) error) {
	s, ok := v.(string)
	if !ok {
		r.fault(key, "is %s, want a text in quotes", kindOf(v))
		return
	}
	if err := use(s); err != nil {
		r.fault(key, "%v", err)
	}
}

// list keeps the items that have no fault, so that those are checked further.
// Tables are all kept, each with a key of its own.
func (r *reader) list(into reflect.Value, items []any, key string) {
	list := reflect.MakeSlice(into.Type(), 0, len(items))
	for i, item := range items {
		v := reflect.New(into.Type().Elem()).Elem()
		at := key
		tree, table := item.(map[string]any)
		if table = table && v.Kind() == reflect.Struct; table {
			at = fmt.Sprintf("%s[%d]", key, i)
			r.table(v, tree, at)
		}
		if table || r.value(v, item, at) {
			list = reflect.Append(list, v)
		}
	}
	into.Set(list)
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a text"
	case int64, float64:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}

func wanted(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Struct:
		return "a table"
	case reflect.Slice:
		return "a list"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text in quotes"
	default:
		return "a whole number"
	}
}

// keyLines finds the line of each key and table of a valid file. The tables of
// an array are numbered: "a.b[0]".
func keyLines(data []byte) map[string]int {
	lines := map[string]int{}
	var p unstable.Parser
	p.Reset(data)
	table, counts := "", map[string]int{}
	for p.NextExpression() {
		node := p.Expression()
		if node.Kind == unstable.Comment {
			continue
		}
		key := ""
		if node.Kind == unstable.KeyValue {
			key = table
		}
		for it := node.Key(); it.Next(); {
			if key != "" {
				key += "."
			}
			key += string(it.Node().Data)
			if line := p.Shape(it.Node().Raw).Start.Line; it.IsLast() || lines[key] == 0 {
				lines[key] = line
			}
		}
		if node.Kind == unstable.ArrayTable {
			n := counts[key]
			counts[key]++
			lines[key+fmt.Sprintf("[%d]", n)] = lines[key]
			key += fmt.Sprintf("[%d]", n)
		}
		if node.Kind != unstable.KeyValue {
			table = key
		}
	}
	return lines
}

// nearest gives the known name that is one slip away from a wrong one: another
// letter, one too many or too few, - for _.
func nearest(wrong string, known []string) string {
	for _, name := range known {
		if name == strings.ReplaceAll(strings.ToLower(wrong), "-", "_") || oneSlip(wrong, name) {
			return name
		}
	}
	return ""
}

func oneSlip(a, b string) bool {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	a, b = a[i:], b[i:]
	switch {
	case len(a) == 0 || len(b) == 0:
		return len(a)+len(b) == 1
	case len(a) == len(b):
		return a[1:] == b[1:] || len(a) > 1 && a[0] == b[1] && a[1] == b[0] && a[2:] == b[2:]
	default:
		return a[1:] == b || a == b[1:]
	}
}
