package shell

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for line, want := range map[string][]string{
		"":                            nil,
		"  \t\r\n":                    nil,
		"a  b":                        {"a", "b"},
		`''`:                          {""},
		`a"b c"d`:                     {"ab cd"},
		`'a\' b`:                      {`a\`, "b"},
		`"a\"b" \'`:                   {`a"b`, `'`},
		"a\\\nb":                      {"a\nb"},
		"$(id) `id` *;>x && y":        {"$(id)", "`id`", "*;>x", "&&", "y"},
		"http://a.test/?q=1&r=\u00e4": {"http://a.test/?q=1&r=\u00e4"},
	} {
		if got, err := Split(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
	for _, line := range []string{`"`, `a '`, `a\`, "a\x00b", "\xff", strings.Repeat("a", maxText+1), strings.Repeat("a ", maxWords+1)} {
		if _, err := Split(line); !errors.Is(err, ErrLine) {
			t.Errorf("%.20q: %v", line, err)
		}
	}
}

func FuzzSplit(f *testing.F) {
	for _, seed := range []string{"status", `a "b c" 'd' e\ f`, "\"\x00", `\`, "''"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words, err := Split(line)
		if err != nil {
			return
		}
		quoted := ""
		for _, w := range words { // what is quoted comes back as it was
			if strings.ContainsRune(w, 0) {
				t.Errorf("%q has a NUL", w)
			}
			quoted += " '" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		if len(quoted) > maxText {
			return
		}
		again, err := Split(quoted)
		if err != nil || !slices.Equal(again, words) {
			t.Errorf("%q became %q, then %q, %v", line, words, again, err)
		}
	})
}

func TestParseKeys(t *testing.T) {
	const good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJbAk2Jw5hL4kqJ8vZ5oJ0oQm7iT0D1xOaEcTwqC0b9H ann@desk"
	keys, err := ParseKeys([]byte("# x\n\n" + good + "\r\nnonsense\ncommand=\"x\" " + good + "\nssh-dss AAAA\n"))
	if len(keys) != 1 || keys[0].Comment != "ann@desk" || keys[0].Kind != "ssh-ed25519" || !strings.HasPrefix(keys[0].Fingerprint, "SHA256:") {
		t.Errorf("%+v", keys)
	}
	for _, want := range []string{"line 4: ", "line 5: ", "options", "line 6: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	for line, want := range map[string]string{
		"-----BEGIN OPENSSH PRIVATE KEY-----": "private key",
		good + "\n" + good:                    "one line",
		"":                                    "ssh-ed25519 AAAA",
	} {
		if _, err := ParseKey([]byte(line)); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", line, err)
		}
	}
	if keys, err := ParseKeys([]byte(strings.Repeat(good+"\n", MaxKeys+1))); len(keys) != MaxKeys || err == nil {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJbAk2Jw5hL4kqJ8vZ5oJ0oQm7iT0D1xOaEcTwqC0b9H x"))
	f.Add([]byte("command=\"a,b\" ssh-rsa AAAA"))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, _ := ParseKeys(text)
		if len(keys) > MaxKeys {
			t.Errorf("%d keys", len(keys))
		}
		for _, k := range keys {
			if !strings.HasPrefix(k.Fingerprint, "SHA256:") || strings.ContainsAny(k.Comment, "\r\n\x00") {
				t.Errorf("a key became %+v", k)
			}
		}
	})
}

func TestEditor(t *testing.T) {
	var e editor
	var lines []string
	for _, c := range []byte("a\u00e4\x7fb\r\n\x1bOPx\x1b[1;5Cy\tz\n\x03q\x15\r\x04") {
		if _, line, done := e.key(c); done {
			lines = append(lines, line)
		}
	}
	if want := []string{"ab", "xy z", ""}; !slices.Equal(lines, want) || !e.left {
		t.Errorf("%q, left %v", lines, e.left)
	}
}
